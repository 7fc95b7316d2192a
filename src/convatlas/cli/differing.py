"""`convatlas diff`: what sets two variants apart, layer by layer, and what that does to their cost and receptive field."""

import re
from collections.abc import Iterable, Sequence
from math import inf
from textwrap import wrap
from typing import Annotated

import typer
from rich.table import Table

from convatlas.cli.console import OUT, count, counted, tell, tell_json
from convatlas.cli.options import Json, typed_model
from convatlas.inspection.difference import channels, difference
from convatlas.models.papers import PAPERS
from convatlas.records.model import LayerDiff, LayerRecord, ModelDiff, PartDiff, PartTotals, TraceRecord

ImageSize = Annotated[int | None, typer.Option("--image-size", help="Pixels a side, for both (default: its own for each).")]
NumClasses = Annotated[int | None, typer.Option("--num-classes", help="Classes, for both (default: its own for each).")]


def diff(
    first: Annotated[str, typer.Argument(help="A variant, such as resnet50.")],
    second: Annotated[str, typer.Argument(help="Another, such as resnet50.paper.")],
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
    as_json: Json = False,
) -> None:
    """What differs between two variants, and what that does to parameters, MACs and receptive field."""
    first, second = typed_model(first), typed_model(second)
    record = difference(_traced(first, image_size, num_classes), _traced(second, image_size, num_classes))
    if as_json:
        tell_json({"models": [first, second], "difference": record})
        return
    width = max(len(first), len(second))
    for letter, name, trace in (("A", first, record.first), ("B", second, record.second)):
        tell(f"{letter}  {name:{width}}  image {_shape(trace.input_shape)}, output {_shape(trace.layers[-1].output_shape)}")
    tell("Before a layer: - only in A, + only in B, ~ in both, but not the same.")
    for part in record.parts:
        _part(part)
    tell("")
    OUT.print(_totals(first, second, record))
    _notes(first, second, record)


def _traced(name: str, image_size: int | None, num_classes: int | None) -> TraceRecord:
    """The variant's layers for the image that was asked for, or for one as it was published for."""
    import torch

    from convatlas.inspection.trace import trace
    from convatlas.models.registry import create_model, find_variant

    variant = find_variant(name)
    size = variant.image_size if image_size is None else image_size
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, in_chans=variant.in_chans, image_size=size)
    return trace(model, (variant.in_chans, size, size))


# Parts and layers


def _part(part: PartDiff) -> None:
    """A part's heading and, where it is not the same in both, what it comes to and what differs."""
    tell("")
    if not part.changes and not part.resized:
        tell(f"{part.part}: the same, {counted(part.same, 'layer')}")
        return
    elsewhere = f", {part.resized} of them on other shapes" if part.resized else ""
    tell(f"{part.part}: {counted(part.same, 'layer') if part.same else 'no layer'} the same{elsewhere}")
    _line("    ", "; ".join(_compared(part.first, part.second)))
    for changes in _alike(part.changes):
        _line(f"  {_mark(changes[0])} ", f"{len(changes)} {', '.join([*_described(changes), *_cost(changes)])}")


def _compared(first: PartTotals | None, second: PartTotals | None) -> Iterable[str]:
    """What a part gives and comes to."""
    totals = [each for each in (first, second) if each is not None]
    yield f"gives {_arrow(_shape(each.output_shape) for each in totals)}"
    yield f"{_arrow(f'{each.params:,}' for each in totals)} parameters"
    yield f"{_arrow(count(each.macs) for each in totals)} MACs"
    yield f"receptive field {_arrow(_field(each.receptive_field, known=each.followed) for each in totals)}"


def _alike(changes: Iterable[LayerDiff]) -> list[list[LayerDiff]]:
    """Changes that read the same, together."""
    groups: dict[object, list[LayerDiff]] = {}
    for change in changes:
        groups.setdefault(_reading(change), []).append(change)
    return list(groups.values())


def _reading(change: LayerDiff) -> object:
    """What a line says of a change. Channels count where they differ, or where a layer with MACs comes or goes."""
    layers = [layer for layer in (change.first, change.second) if layer is not None]
    # Rates of dropout and drop path differ from block to block.
    words = [(layer.operation, "rate" if layer.settings.startswith("rate ") else layer.settings) for layer in layers]
    widths = [_channels(layer) for layer in layers]
    count_them = widths[0] != widths[-1] if len(layers) > 1 else layers[0].macs > 0
    return _mark(change), tuple(words), tuple(widths) if count_them else None


def _mark(change: LayerDiff) -> str:
    return "-" if change.second is None else "+" if change.first is None else "~"


def _described(changes: Sequence[LayerDiff]) -> list[str]:
    """Kind, channels and settings of the layers, each with an arrow where it differs."""
    before = [change.first for change in changes if change.first is not None]
    after = [change.second for change in changes if change.second is not None]
    given = [layers for layers in (before, after) if layers]
    words = [
        _arrow(layers[0].operation for layers in given),
        _arrow(_one_of(_channels(layer) for layer in layers) for layers in given),
        _arrow(_settings(layers) for layers in given),
    ]
    return [word for word in words if word]


def _one_of(words: Iterable[str]) -> str:
    """The word, if all are the same."""
    different = set(words)
    return different.pop() if len(different) == 1 else ""


def _settings(layers: Sequence[LayerRecord]) -> str:
    """Their settings, which are the same but for rates."""
    first, last = layers[0].settings, layers[-1].settings
    return first if first == last else f"{first} to {last.removeprefix('rate ')}"


def _channels(layer: LayerRecord) -> str:
    """The channels of a layer that has parameters."""
    if not layer.params:
        return ""
    before, after = channels(layer)
    return str(before) if before == after else f"{before} to {after}"


def _cost(changes: Sequence[LayerDiff]) -> Iterable[str]:
    """What the changes add to the parameters and MACs."""
    before = [change.first for change in changes if change.first is not None]
    after = [change.second for change in changes if change.second is not None]
    params = sum(layer.params for layer in after) - sum(layer.params for layer in before)
    macs = sum(layer.macs for layer in after) - sum(layer.macs for layer in before)
    if params:
        yield f"{params:+,} parameters"
    if macs:
        yield f"{'+' if macs > 0 else '-'}{count(abs(macs))} MACs"


# Totals and notes


def _totals(first: str, second: str, record: ModelDiff) -> Table:
    a, b = record.first, record.second
    table = Table(box=None, pad_edge=False)
    table.add_column("in total", no_wrap=True)
    for heading in (f"A {first}", f"B {second}", "difference", ""):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_row("parameters", *_numbers(a.params, b.params))
    if a.auxiliary_params or b.auxiliary_params:
        table.add_row("  and in training", *_numbers(a.auxiliary_params, b.auxiliary_params))
    table.add_row("MACs", *_numbers(a.macs, b.macs))
    if a.receptive_field is None or b.receptive_field is None:
        fields = [_field(each.receptive_field, known=each.unfollowed is None) for each in (a, b)]
        table.add_row("receptive field", *fields, "none" if fields[0] == fields[1] != "unknown" else "", "")
    else:
        table.add_row("receptive field", *_numbers(a.receptive_field, b.receptive_field))
    return table


def _numbers(first: int, second: int) -> tuple[str, str, str, str]:
    """Two numbers, and how much the second is more or less than the first."""
    if first == second:
        return f"{first:,}", f"{second:,}", "none", ""
    share = 100 * (second - first) / first if first else inf
    return f"{first:,}", f"{second:,}", f"{second - first:+,}", f"{share:+.1f} %" if 0.05 <= abs(share) < inf else ""


def _notes(first: str, second: str, record: ModelDiff) -> None:
    from convatlas.models.registry import find_variant

    a, b = record.first, record.second
    _line("", "The receptive field, in pixels, is that of the last stage's map. It may be larger than the image.")
    outside = [each.params - sum(layer.params for layer in each.layers) for each in (a, b)]
    if outside[0] != outside[1]:
        _line("", f"Parameters outside of layers: {_arrow(f'{each:,}' for each in outside)}.")
    if a.input_shape != b.input_shape:
        _line("", "The images differ, and with them MACs and shapes: --image-size N gives both one size.")
    if record.same_layers:
        _line("", "All layers are the same. What is computed between them, and initial weights, are not compared.")
        return
    families = dict.fromkeys(found for name in (first, second) if (found := find_variant(name).family) in PAPERS)
    if not families:
        return
    tell(f"why: {', '.join(f'docs/families/{family}.md' for family in families)}")


# Words


def _arrow(values: Iterable[str]) -> str:
    """A value, or two with an arrow where they differ."""
    before, *rest = values
    return f"{before or 'none'} -> {rest[0] or 'none'}" if rest and rest[0] != before else before


def _field(field: int | None, *, known: bool) -> str:
    return "unknown" if not known else "whole image" if field is None else f"{field:,}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def _line(start: str, text: str) -> None:
    """Text, wrapped to the terminal and indented below its beginning, but not between a number and its unit."""
    bound = re.sub(r" (?=([GMk] )?MACs|[GMk] ->|parameters)", "\0", text)
    bound = re.sub(r"(?<=\0[GMk]) (?=MACs)", "\0", bound)
    lines = wrap(bound, max(OUT.width, 40), initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
    for line in lines:
        tell(line.replace("\0", " "))
