"""`convatlas list` and `convatlas data`: what there is."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from convatlas.cli.console import ERR, OUT, count, tell, tell_json, tell_table
from convatlas.cli.options import DataRoot, Json
from convatlas.errors import UserError, unknown_name
from convatlas.models.papers import PAPERS, golden_rows
from convatlas.records.model import GoldenRow, Paper, Published


def list_models(
    pattern: Annotated[str | None, typer.Argument(help="Only the variants that match, such as 'resnet*' or '*.paper'.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every variant, not only the landmarks.")] = False,
    as_json: Json = False,
) -> None:
    """The table of landmark architectures, with costs computed here and accuracies as published."""
    rows = golden_rows()
    chosen = {name: row for name, row in rows.items() if pattern is None or fnmatchcase(name, pattern)}
    if not chosen:
        raise unknown_name("model", str(pattern), rows, where="`convatlas list --all` shows them all.")
    everything = every or pattern is not None
    if as_json:
        tell_json(chosen if everything else [{"paper": paper, "numbers": rows[paper.landmark]} for paper in PAPERS.values()])
    elif everything:
        tell_table(_variants(chosen))
        tell("")
        tell("field: receptive field of the last stage's map, in pixels; all: every unit sees the whole image.")
    else:
        tell_table(_landmarks(rows))
        _footnotes()


def _landmarks(rows: dict[str, GoldenRow]) -> Table:
    table = Table(title="Landmark architectures", title_justify="left", box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("year", no_wrap=True)
    table.add_column("key innovation", min_width=16)
    for heading in ("params", "MACs", "at"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("top-1\npaper", justify="right", no_wrap=True)
    table.add_column("top-1\ntorch-\nvision", justify="right", no_wrap=True)
    for paper in PAPERS.values():
        row = rows[paper.landmark]
        table.add_row(
            paper.landmark,
            str(paper.year),
            paper.innovation,
            count(row.params),
            count(row.macs),
            str(row.image_size),
            _figure(paper.own_figure),
            _figure(paper.library_figure),
        )
    return table


def _figure(published: Published | None) -> str:
    return "-" if published is None else f"{published.top1:.2f}"


def _footnotes() -> None:
    """How each figure was measured, and where it stands."""
    tell("")
    tell("Parameters and MACs are computed here, for one image of the size under `at`; LeNet-5 takes one channel, ten classes.")
    tell("Top-1 in percent. torchvision: one network, one centre crop of 224 pixels, ImageNet validation, IMAGENET1K_V1. Papers:")
    for paper in PAPERS.values():
        if paper.own_figure is not None:
            tell(f"  {paper.landmark}: {paper.own_figure.top1:g}, {paper.own_figure.protocol} ({paper.own_figure.source})")
    tell("Figures that teaching tables print, and what they are:")
    for paper in PAPERS.values():
        if paper.teaching_table is not None:
            tell(f"  {paper.landmark}: {paper.teaching_table.top1:g}, {_what(paper)}")
    tell("`convatlas list --all` shows every variant; `--json` has titles, authors and sources.")


def _what(paper: Paper) -> str:
    assert paper.teaching_table is not None
    return f"{paper.teaching_table.protocol} ({paper.teaching_table.source})"


def _variants(rows: dict[str, GoldenRow]) -> Table:
    table = Table(title="Variants", title_justify="left", box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("params", "MACs", "at", "field", "channels", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        field = "all" if row.receptive_field is None else str(row.receptive_field)
        sizes = (str(row.image_size), field, str(row.in_chans), str(row.num_classes))
        table.add_row(name, f"{row.params:,}", count(row.macs), *sizes)
    return table


def data(
    name: Annotated[str | None, typer.Argument(help="One data set; without it, all are listed.")] = None,
    data_root: DataRoot = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set, checking its checksums.")] = False,
    as_json: Json = False,
) -> None:
    """The data sets: what they are, and where on this machine they are.

    `convatlas data preview NAME-or-FOLDER` shows what augmentation makes of one: see `convatlas data preview --help`.
    """
    from convatlas.data.catalog import CATALOG

    if name is None and download:
        raise UserError("no data set is named", fix="Name one, such as `convatlas data cifar10 --download`.")
    if name is not None and (download or name not in CATALOG):
        _fetch(name, data_root)
    names = [name] if name is not None else list(CATALOG)
    found = {each: _place(each, data_root) for each in names}
    if as_json:
        tell_json({each: {**vars(CATALOG[each]), "place": found[each]} for each in names})
        return
    table = Table(title="Data sets", title_justify="left", box=None, pad_edge=False)
    for heading in ("name", "images", "pixels", "classes"):
        table.add_column(heading, no_wrap=True)
    table.add_column("where", overflow="fold")
    for each in names:
        entry = CATALOG[each]
        images = "-" if entry.n_train is None else f"{entry.n_train:,} + {entry.n_test:,}"
        pixels = "-" if entry.image is None else f"{entry.image[1]}x{entry.image[2]}x{entry.image[0]}"
        table.add_row(each, images, pixels, str(entry.num_classes or "-"), found[each])
    OUT.print(table)
    tell("")
    for each in names:
        tell(f"{each}: {CATALOG[each].title}, {CATALOG[each].what}")


def _place(name: str, root: Path | None) -> str:
    """Where a data set is, in words or as a path."""
    from convatlas.data.catalog import CATALOG
    from convatlas.data.places import locate, present

    kind = CATALOG[name].kind
    if kind != "files":
        return "built in" if kind == "built in" else "yours: --data-root"
    if root is None:
        return str(present(name) or "not here: --download fetches it")
    try:
        return str(locate(name, root))
    except UserError as error:
        return str(error)


def _fetch(name: str, root: Path | None) -> None:
    from convatlas.data.catalog import CATALOG
    from convatlas.data.download import download_entry
    from convatlas.data.places import cache_folder
    from convatlas.download import download_bar

    if name not in CATALOG:
        raise unknown_name("data set", name, CATALOG, where="`convatlas data` lists them.")
    if CATALOG[name].kind != "files":
        raise UserError(f"{name} has nothing to fetch", fix=f"It is {CATALOG[name].kind}.")
    with download_bar(ERR) as progress:
        download_entry(name, root or cache_folder() / name, progress=progress)
