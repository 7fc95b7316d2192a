"""`convatlas show`: the ledger of a network, one row a layer, in the order in which data flows."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from convatlas.cli.console import OUT, counted, narrowest, printable, tell, tell_json, tell_table
from convatlas.cli.options import Json, check_new, typed_model
from convatlas.errors import UserError
from convatlas.records import storage
from convatlas.records.ledger import Ledger, LedgerRow
from convatlas.report import ledger_words as words
from convatlas.report.folding import Branch, Item, rows_in, tree

Name = Annotated[str, typer.Argument(help="A model of `convatlas list --all`, configured or not, or a factory: net.py:make.")]
ImageSize = Annotated[
    int | None, typer.Option("--image-size", help="Pixels a side (default: what it was published for, or 224).")
]
InChans = Annotated[int | None, typer.Option("--in-chans", help="Channels of the image (default: its own, or 3).")]


def show(
    name: Name,
    image_size: ImageSize = None,
    in_chans: InChans = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="Classes (default: its own).")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="For the estimate of training's memory.", min=1)] = 32,
    unfolded: Annotated[bool, typer.Option("--all", help="Every block, also those that repeat the one before.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with all columns to this new file.")] = None,
    as_json: Json = False,
) -> None:
    """What every layer does, costs, keeps and sees, with the output-size formula filled in."""
    check_new(html, option="--html")
    ledger = ledger_of(name, image_size=image_size, in_chans=in_chans, num_classes=num_classes)
    if html is not None:
        from convatlas.report.ledger_page import ledger_page

        storage.write_text(html, ledger_page(ledger, batch_size=batch_size))
    if as_json:
        tell_json(ledger)
        return
    tell(f"{ledger.model}, one image of {'x'.join(map(str, ledger.input_shape))}")
    tell("")
    tell_table(_table(ledger, tree(ledger, fold=not unfolded)))
    _totals(ledger, batch_size)
    if html is not None:
        tell(f"written: {html}")


def ledger_of(name: str, *, image_size: int | None, in_chans: int | None, num_classes: int | None) -> Ledger:
    """The ledger of a model named on the command line: built on the meta device, or what a factory in a file makes."""
    import torch

    from convatlas.inspection.ledger import ledger
    from convatlas.models.registry import create_model, find_variant
    from convatlas.models.user_files import DEFAULTS, is_user_file, model_from_file, takes

    name = typed_model(name)
    if is_user_file(name):
        usual = takes(name)
        if num_classes is not None and "num_classes" not in usual:
            what = "--num-classes is for models of the atlas, and factories that take num_classes"
            raise UserError(what, fix="Let the factory make the number of classes.")
        asked = {"num_classes": num_classes, "in_chans": in_chans, "image_size": image_size}
        shape = {**DEFAULTS, **usual, **{key: value for key, value in asked.items() if value is not None}}
        with redirect_stdout(sys.stderr):  # what somebody's network prints is no part of the result
            model = model_from_file(name, **asked)
            return ledger(model, (shape["in_chans"], shape["image_size"], shape["image_size"]), name=name)
    variant = find_variant(name)
    size = variant.image_size if image_size is None else image_size
    channels = variant.in_chans if in_chans is None else in_chans
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, in_chans=channels, image_size=size)
    return ledger(model, (channels, size, size), name=name)


# The table


def _table(ledger: Ledger, items: Sequence[Item]) -> Table:
    """With all columns where there is room, else without those that need some thought."""
    whole = _drawn(ledger, items, wide=True)
    return whole if narrowest(whole) <= OUT.width else _drawn(ledger, items, wide=False)


def _drawn(ledger: Ledger, items: Sequence[Item], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("operation", min_width=37 if wide else 22)
    for heading in ("output", "params", "MACs", *(["keeps"] if wide else []), "field", *(["jump", "start"] if wide else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for cells, style in _lines(ledger, items, 0):
        kept = cells if wide else [cell for i, cell in enumerate(cells) if i not in (5, 7, 8)]
        table.add_row(*(Text("\n".join(printable(line) for line in cell.split("\n")), style=style) for cell in kept))
    return table


def _lines(ledger: Ledger, items: Sequence[Item], depth: int) -> Iterator[tuple[list[str], str]]:
    """The cells of each line with their style, modules with what is in them below."""
    indent = "  " * depth
    for item in items:
        rows = list(rows_in([item]))
        if isinstance(item, Branch):
            kind = f"{item.kind} x {item.times}" if item.times > 1 else item.kind
            sums = [words.total(rows, lambda row: row.params), words.total(rows, lambda row: row.macs)]
            heading = [f"{indent}{item.name}", kind, "", *(words.short(value) if value else "" for value in sums), "", "", "", ""]
            yield heading, "" if depth else "bold"
            yield from _lines(ledger, item.items, depth + 1)
        else:
            yield [f"{indent}{item.name or '.'}", *_cells(ledger, rows)], ""


def _cells(ledger: Ledger, rows: Sequence[LedgerRow]) -> list[str]:
    return [
        "\n".join([words.what(rows), *words.formulas(rows), *words.paths(ledger, rows)]),
        words.shape(rows),
        words.number(rows, lambda row: row.params, write=words.short),
        words.number(rows, lambda row: row.macs, write=words.short),
        words.number(rows, lambda row: row.kept_bytes, write=words.size),
        words.field(rows),
        words.number(rows, lambda row: row.jump),
        words.number(rows, lambda row: row.start),
    ]


# Below it


def _totals(ledger: Ledger, batch_size: int) -> None:
    tell("")
    for line in _sentences(ledger, batch_size):
        for part in wrap(printable(line), max(OUT.width, 40), subsequent_indent="  ", break_on_hyphens=False):
            tell(part)


def _sentences(ledger: Ledger, batch_size: int) -> Iterator[str]:
    from convatlas.report.ledger_page import memory_needs

    more = f", and {ledger.auxiliary_params:,} that only training uses" if ledger.auxiliary_params else ""
    yield f"{ledger.params:,} parameters{more}; {ledger.macs:,} MACs"
    memory = ledger.memory
    yield f"memory: weights {words.size(memory.weights)}; all maps of one image {words.size(memory.activations)}"
    if memory.kept is not None:
        yield f"training keeps {words.size(memory.kept)} of each image until the backward pass"
        said = ", ".join(f"{words.size(value)} with {optimizer}" for optimizer, value in memory_needs(ledger, batch_size))
        yield f"training with {counted(batch_size, 'image')} a batch: about {said}"
    yield words.seen(ledger)
    for kind, reason, where in words.hints(ledger):
        others = f" and {len(where) - 2} more" if len(where) > 3 else ""
        yield f"{kind}: {'; '.join(where if len(where) <= 3 else where[:2])}{others}. {reason}"
    for note in ledger.notes:
        yield f"note: {note}"
    yield "field: pixels a side that a unit can see, through the least and the furthest-seeing path; all: the whole image."
    yield ". is called between modules; a..b: first and last of what is folded. --all unfolds, --html FILE has every column."
