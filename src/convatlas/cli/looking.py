"""`convatlas look`: what happens inside a network when pictures pass through it."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convatlas.cli.console import say, tell, tell_json
from convatlas.cli.options import Code, Json, check_new, fresh_folder
from convatlas.cli.subjects import Wanted, file_name, find_subject, looked
from convatlas.errors import UserError, unknown_name
from convatlas.records import codec, storage
from convatlas.records.gradients import FILE, read_flows

if TYPE_CHECKING:
    from convatlas.records.look import Look

PARTS = ("maps", "filters", "activations", "field", "attributions", "gradients")
Images = Annotated[list[Path], typer.Argument(help="Pictures.")]
Only = Annotated[str | None, typer.Option("--only", help=f"Some of {','.join(PARTS)}.")]
Pretrained = Annotated[
    str | None, typer.Option("--pretrained", help="Weights: default, torchvision, timm, another source, or a file.")
]


def look(
    name: Annotated[str, typer.Argument(help="A model of `convatlas list --all`, a run folder, or path/to/file.py:make_model.")],
    images: Images,
    pretrained: Pretrained = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="Layers to look at (default: the stages). Repeatable.")
    ] = None,
    only: Only = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Pixels a side (default: as the weights want).")] = None,
    in_chans: Annotated[int | None, typer.Option("--in-chans", help="Channels of a network from a file: 1 or 3.")] = None,
    target: Annotated[
        int | None, typer.Option("--target", help="Class index that maps speak for (default: the likeliest).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder for page, pictures and records.")] = None,
    code: Code = None,
    as_json: Json = False,
) -> None:
    """Feature maps, filters, activity, effective receptive fields, and what an answer rests on, as one page."""
    from convatlas.report.look import busy, look_page

    check_new(out)
    parts = _parts(only)
    _check_used(parts, layer or [], target)
    subject = find_subject(name, pretrained=pretrained, image_size=image_size, in_chans=in_chans, code=code)
    kept = "gradients" in parts and subject.folder is not None and (subject.folder / FILE).exists()
    if only is not None and "gradients" in parts and not kept:
        raise UserError(f"{name} kept no gradients", fix="Train a run with --gradients, or leave the part gradients out.")
    wanted = Wanted(tuple(images), parts, tuple(dict.fromkeys(layer or [])), target, strict=only is not None)
    record = looked(subject, wanted)
    folder = out or fresh_folder("look")
    _write(record, folder, look_page(record, run=read_flows(subject.folder) if kept and subject.folder is not None else None))
    if as_json:
        tell_json(record)
        return
    for each in record.images:
        said = zip(each.prediction.classes[:3], each.prediction.probabilities, strict=False)
        tell(f"{each.image}: " + ", ".join(f"{label} {share:.1%}" for label, share in said))
        for one in each.attributions:
            tell(f"  {one.method}: {one.note}")
    if record.activities:
        tell(busy(record).sentence)
    for note in record.notes:
        say(f"note: {note}")
    tell(f"written: {folder / 'look.html'}")


def _parts(only: str | None) -> tuple[str, ...]:
    parts = PARTS if only is None else tuple(part.strip() for part in only.split(","))
    for part in parts:
        if part not in PARTS:
            raise unknown_name("part", part, PARTS, where=f"Choose from {', '.join(PARTS)}.")
    return parts


def _check_used(parts: tuple[str, ...], layers: list[str], target: int | None) -> None:
    """Raises UserError for an option that none of the parts would look at."""
    if layers and not {"maps", "field"} & set(parts):
        raise UserError("--layer is for maps and field, which --only leaves out", fix="Leave --layer out, or add one of them.")
    if target is not None and "attributions" not in parts:
        raise UserError("--target is for attributions, which --only leaves out", fix="Leave --target out, or add them.")


# Writing


def _write(record: "Look", folder: Path, page: str) -> None:
    """The page, the record, and each picture as a file of its own."""
    storage.new_folder(folder)
    storage.write_text(folder / "look.html", page)
    storage.write_text(folder / "look.json", codec.to_text(record))
    for i, each in enumerate(record.images):
        stem = f"{i:02}"
        _write_png(folder / f"{stem}-image.png", each.picture)
        for maps in each.maps:
            _write_png(folder / f"{stem}-maps-{file_name(maps.layer)}.png", maps.picture)
        for one in each.attributions:
            _write_png(folder / f"{stem}-{one.method.replace(' ', '-')}.png", one.picture)
    if record.filters is not None:
        _write_png(folder / "filters.png", record.filters.picture)
    for field in record.fields:
        _write_png(folder / f"field-{file_name(field.layer)}.png", field.picture)


def _write_png(path: Path, url: str) -> None:
    storage.write_bytes(path, base64.b64decode(url.partition(",")[2]))
