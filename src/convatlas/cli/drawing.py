"""`convatlas draw`: a network as a person would draw it on a board, or the line of descent of the landmark networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convatlas.cli.console import tell, tell_json
from convatlas.cli.options import Json
from convatlas.cli.showing import ledger_of
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.ledger import Ledger
from convatlas.records.naming import short_name

if TYPE_CHECKING:
    from convatlas.report.charts.svg import Markup

KINDS = (".svg", ".html")

Name = Annotated[
    str | None, typer.Argument(help="A model of `convatlas list --all`, or a factory: net.py:make.", show_default=False)
]
ImageSize = Annotated[int | None, typer.Option("--image-size", help="Pixels a side (default: as published).")]
Part = Annotated[str | None, typer.Option("--open", help="The part to open up, by its path, such as stages.0.1.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="A new file: .svg, or .html with a form for telephones (default: NAME.svg).")
]
Narrow = Annotated[bool, typer.Option("--narrow", help="For a telephone: 358 pixels wide, not 1060.")]
FromLedger = Annotated[Path | None, typer.Option("--ledger", help="Draw what `convatlas show NAME --json` wrote, without torch.")]
Evolution = Annotated[
    bool, typer.Option("--evolution", help="The landmark networks, 1998 to 2022, and what each took from whom.")
]


def draw(
    name: Name = None,
    image_size: ImageSize = None,
    part: Part = None,
    out: Out = None,
    narrow: Narrow = False,
    ledger: FromLedger = None,
    evolution: Evolution = False,
    as_json: Json = False,
) -> None:
    """Draw a network as SVG: stem, stages and head with their shapes, and one block opened up."""
    if (name is not None) + (ledger is not None) + evolution != 1:
        raise UserError("draw takes one thing to draw", fix="Give a name, or --ledger FILE, or --evolution.")
    if name is None and image_size is not None:
        raise UserError("--image-size is for a network by its name", fix="Leave it out.")
    if evolution and part is not None:
        raise UserError("--open is for one network", fix="Leave it out, or give a name.")
    stem = _stem(name, ledger)
    file = Path(f"{stem}.svg") if out is None else out
    _check_file(file, narrow=narrow)
    record = None if evolution else _record(name, ledger, image_size)
    drawings = {width: _drawn(record, width, part) for width in _widths(file, narrow=narrow)}
    content = _content(file, stem, drawings)
    storage.write_text(file, content)
    if as_json:
        tell_json({"file": str(file), "widths": [int(width) for width in drawings], "bytes": len(content.encode())})
    else:
        tell(f"drawn: {file}")


def _stem(name: str | None, ledger: Path | None) -> str:
    """What the file is called if nobody says: after the variant, the factory in net.py:make, the ledger, or `evolution`."""
    if name is None:
        return "evolution" if ledger is None else ledger.stem
    if "{" in name:
        return short_name(name)
    path, colon, factory = name.rpartition(":")
    return f"{Path(path).stem}.{factory}" if colon else name


def _check_file(file: Path, *, narrow: bool) -> None:
    """Refuse a file that exists or is neither SVG nor HTML, before anything is computed."""
    if file.suffix.lower() not in KINDS:
        raise UserError(f"{str(file)!r} is neither .svg nor .html", fix="Name a file of one of these with --out.")
    if narrow and file.suffix.lower() == ".html":
        raise UserError("a page has both forms in it", fix="Leave --narrow out, or name an .svg file.")
    with storage.explained(file):
        exists, beside = file.exists() or file.is_symlink(), file.parent.is_dir()
    if exists:
        raise UserError(f"{file} exists already, and nothing is ever overwritten", fix="Name another file with --out.")
    if not beside:
        raise UserError(f"the folder {file.parent} does not exist", fix="Make it, or name another file with --out.")


def _record(name: str | None, file: Path | None, image_size: int | None) -> Ledger:
    """The ledger in a file, or that of a network by its name."""
    if name is not None:
        return ledger_of(name, image_size=image_size, in_chans=None, num_classes=None)
    assert file is not None
    return codec.read(Ledger, file)


def _widths(file: Path, *, narrow: bool) -> tuple[float, ...]:
    from convatlas.report.diagram.pieces import NARROW, WIDE

    if file.suffix.lower() == ".html":
        return WIDE, NARROW
    return (NARROW,) if narrow else (WIDE,)


def _drawn(record: Ledger | None, width: float, part: str | None) -> "Markup":
    if record is not None:
        from convatlas.report.diagram.network import network_svg

        return network_svg(record, width=width, part=part)
    from convatlas.models.evolution import milestones
    from convatlas.report.diagram.evolution import evolution_svg

    return evolution_svg(milestones(), width=width)


def _content(file: Path, title: str, drawings: "dict[float, Markup]") -> str:
    if file.suffix.lower() == ".html":
        from convatlas.report.diagram.page import page
        from convatlas.report.diagram.pieces import NARROW, WIDE

        return page(title, wide=drawings[WIDE], narrow=drawings[NARROW])
    (drawing,) = drawings.values()
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{drawing}\n'
