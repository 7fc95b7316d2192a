"""`convatlas weights`: the weights that others have published, how good they are, and which are on this machine."""

from itertools import groupby
from typing import Annotated

import typer
from rich.table import Table

from convatlas.cli.console import OUT, tell, tell_json
from convatlas.cli.options import Json
from convatlas.errors import UserError, unknown_name
from convatlas.records import codec
from convatlas.records.weights import PublishedWeights


def weights(
    model: Annotated[str | None, typer.Argument(help="One model; without it, all are listed.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="torchvision, timm, another source, or source:tag.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the model's weights, checking their checksum.")] = False,
    as_json: Json = False,
) -> None:
    """The published weights: how accurate they are as measured, under which licence, and where on this machine."""
    from convatlas.models.published import find_weights, locate, obtain

    if download:
        if model is None:
            raise UserError("no model is named", fix="Name one, such as `convatlas weights resnet18 --download`.")
        obtain(find_weights(model, source or True))
    rows = _choose(model, source)
    places = {row: locate(row) for row in rows}
    if as_json:
        tell_json([{**codec.to_plain(row), "place": place and str(place)} for row, place in places.items()])
        return
    OUT.print(_table(rows, here={row for row in rows if places[row] is not None}))
    _footnotes(rows)
    for row, place in places.items():
        if model is not None and place is not None:
            tell(f"{row.name} is at {place}")


def _choose(model: str | None, source: str | None) -> list[PublishedWeights]:
    """The published weights of that model and source, where they are named."""
    from convatlas.models.published import SOURCES, find_weights, published

    if model is not None:
        find_weights(model, source or True)
    rows = [row for row in published(model) if source in (None, row.source, row.name)]
    if source is not None and not rows:
        raise unknown_name("source of weights", source, SOURCES, where="`convatlas weights` lists them.")
    return rows


def _table(rows: list[PublishedWeights], *, here: set[PublishedWeights]) -> Table:
    """A line for each model, and below it one for each of its files."""
    table = Table(title="Published weights", title_justify="left", box=None, pad_edge=False)
    table.add_column("model\n  source:tag", overflow="fold", min_width=18)
    for heading in ("top-1", "top-5", "at"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for heading in ("licence", "here"):
        table.add_column(heading, no_wrap=True, vertical="bottom")
    for model, files in groupby(rows, key=lambda row: row.model):
        table.add_row(model)
        for row in files:
            name = f"  {row.name}{' *' if row.default else ''}"
            figures = (_percent(row.top1), _percent(row.top5), str(row.preprocessing.crop))
            table.add_row(name, *figures, row.licence, "yes" if row in here else "-")
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _footnotes(rows: list[PublishedWeights]) -> None:
    """How the figures were measured, and what to know of the files."""
    tell("")
    tell("Accuracy in percent, with images of `at` pixels a side, as their publishers measured it:")
    for source, evaluated in dict.fromkeys((row.source, row.evaluated) for row in rows if row.evaluated is not None):
        tell(f"  {source}: {evaluated}")
    for row in rows:
        if row.remark is not None:
            tell(f"  {row.model} {row.name}: {row.remark}")
    tell("* is what the source's name alone means in pretrained=; pretrained=True takes the first of them.")
    tell("Licences are the publishers'; ImageNet itself is for research and teaching only, and CC-BY-NC forbids commercial use.")
