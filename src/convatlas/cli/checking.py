"""`convatlas check`: a data set looked over before anything is trained on it."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from convatlas.cli.console import printable, say, tell, tell_json, tell_table
from convatlas.cli.options import DataRoot, ImageSize, Json, NoVerify, Threads, check_new
from convatlas.cli.previewing import named_data
from convatlas.data.catalog import CATALOG
from convatlas.errors import UserError
from convatlas.records import codec, storage

if TYPE_CHECKING:
    from convatlas.records.data_check import DataCheck


def check(
    place: Annotated[str | None, typer.Argument(help="A folder of images, a CSV list, or a set of `convatlas data`.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="Data set: see `convatlas data` (default: shapes).")] = None,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New .html file; the record goes beside it.")] = None,
    no_near: Annotated[bool, typer.Option("--no-near", help="Exact duplicates only: near ones take longest.")] = False,
    image_size: ImageSize = None,
    no_verify: NoVerify = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Duplicates within and across splits, odd classes, unreadable files: what to know before training."""
    record = None if out is None else _record_path(out)
    data, data_root = _chosen(place, data, data_root)
    from convatlas.cli.progress import loading_bar
    from convatlas.cli.working import use_threads
    from convatlas.data.checking import check_data
    from convatlas.training.recipes import NOT_MIRRORED

    use_threads(threads)
    with nullcontext() if as_json else loading_bar() as progress:
        found = check_data(
            data,
            root=data_root,
            image_size=image_size,
            verify=not no_verify,
            near=not no_near,
            mirrored=data not in NOT_MIRRORED,
            progress=progress,
        )
    if out is not None and record is not None:
        from convatlas.report.data_check import check_page

        storage.write_text(record, codec.to_text(found))
        storage.write_text(out, check_page(found))
    if as_json:
        tell_json(found)
        return
    _tell(found)
    if out is not None:
        tell(f"written: {out} and {record}")
    elif found.examples:
        say("note: --out check.html shows the pairs side by side, so that you can judge them")


def _chosen(place: str | None, data: str | None, data_root: Path | None) -> tuple[str, Path | None]:
    """The data set's name in the catalogue and where it lies, named in the one way or the other."""
    if place is not None and data is not None:
        raise UserError(f"the data are named twice, {place} and --data {data}", fix="Leave one of them out.")
    name, root = ("shapes" if data is None else data, data_root) if place is None else named_data(place, data_root)
    if root is not None and name in CATALOG and CATALOG[name].kind == "built in":
        raise UserError(f"{name} is built in and lies nowhere", fix="Leave --data-root out.")
    return name, root


def _record_path(out: Path) -> Path:
    """The record's file beside the page's; both must be new, and have a folder to lie in."""
    if out.suffix.lower() != ".html":
        raise UserError(f"--out is {out}, and what is written is a page", fix="Give it a name that ends in .html.")
    record = out.with_suffix(".json")
    for each in (out, record):
        check_new(each)
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {out.parent}", fix="Make it first, or name another with --out.")
    return record


def _tell(found: "DataCheck") -> None:
    """The check at a terminal: what it comes to, what was found, and the duplicates of each split."""
    for sentence in found.verdict:
        tell(sentence)
    tell("")
    if found.findings:
        table = _table("Found", "what", "where")
        for finding in found.findings:
            table.add_row(*(Text(printable(text)) for text in (finding.kind, finding.text)))
        tell_table(table)
        tell("")
    if found.relations:
        tell_table(_duplicates(found))
        tell("")
    sizes = ", ".join(f"{n:,} {split}" for split, n in found.splits.items())
    tell(f"{found.data}: {found.description}; {len(found.classes)} classes; {sizes or 'no'} images")
    tell(f"near duplicates: {found.near}")


def _duplicates(found: "DataCheck") -> Table:
    from convatlas.report.data_check import relation_words

    table = _table("Duplicates", "where")
    for heading in ("exact\npairs", "near\npairs", "under two\nclasses", "images\nwith one", "of", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found.relations:
        counts = (each.exact, each.near, each.contradictory, len(each.indices), each.total)
        table.add_row(relation_words(each), *(f"{n:,}" for n in counts), f"{each.share:.1%}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for each in columns:
        table.add_column(each, overflow="fold")
    return table
