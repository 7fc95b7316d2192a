"""What sets two networks apart: their layers laid side by side, part by part, by what they do and not by their names."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TypeVar

from convatlas.records.model import LayerDiff, LayerRecord, ModelDiff, PartDiff, PartTotals, TraceRecord

CHANNELS_LAST = ("Linear", "LayerNorm")
"""Layers that see (..., channels); others see (channels, H, W)."""
T = TypeVar("T")
Pair = tuple[T | None, T | None]
"""Counterparts in two networks; None where there is none."""


def difference(first: TraceRecord, second: TraceRecord) -> ModelDiff:
    """What sets two networks apart. Stages are compared in their order, whatever they are called.

    Two layers are the same if they are of the same kind, with the same settings and, where they have parameters, the same
    channels. Layers that do nothing (Identity) are left out, and what is no layer (additions, functions called in `forward`,
    initial weights) is not compared.
    """
    before, after = _parts(first), _parts(second)
    names = [*before, *(name for name in after if name not in before)]
    order = sorted(names, key=lambda name: (name == "head", name == "network", name != "stem"))
    return ModelDiff(first, second, tuple(_part(name, before.get(name), after.get(name)) for name in order))


@dataclass(frozen=True)
class _Part:
    """The layers of a part of a network, and the shape that it gives."""

    layers: tuple[LayerRecord, ...]
    output_shape: tuple[int, ...]


def _parts(record: TraceRecord) -> dict[str, _Part]:
    """The stem, each stage, the head, and what is in none of them. A stage may end in several layers, side by side."""
    stages: dict[str, str] = {}
    parts: dict[str, list[LayerRecord]] = {}
    for layer in record.layers:
        if layer.operation == "Identity":
            continue
        top, _, rest = layer.name.partition(".")
        if top == "stages":
            top = stages.setdefault(rest.partition(".")[0], f"stage {len(stages) + 1}")
        parts.setdefault(top if top in ("stem", "head", *stages.values()) else "network", []).append(layer)
    shapes = {f"stage {i + 1}": shape for i, shape in enumerate(record.stage_shapes)}
    return {name: _Part(tuple(layers), shapes.get(name, layers[-1].output_shape)) for name, layers in parts.items()}


def _part(name: str, first: _Part | None, second: _Part | None) -> PartDiff:
    pairs = _pairs(first.layers if first else (), second.layers if second else ())
    same = [(a, b) for a, b in pairs if a is not None and b is not None and _does(a) == _does(b)]
    return PartDiff(
        part=name,
        first=None if first is None else _totals(first),
        second=None if second is None else _totals(second),
        same=len(same),
        resized=sum(a.output_shape != b.output_shape for a, b in same),
        changes=tuple(LayerDiff(a, b) for a, b in pairs if _differ(a, b)),
    )


def _differ(first: LayerRecord | None, second: LayerRecord | None) -> bool:
    return first is None or second is None or _does(first) != _does(second)


def _pairs(first: Sequence[LayerRecord], second: Sequence[LayerRecord]) -> list[Pair[LayerRecord]]:
    """Each layer with its counterpart, in the way that leaves fewer differences: unit by unit, or layer by layer."""
    ways = (list(_by_units(first, second)), list(_by_layers(first, second)))
    return min(ways, key=lambda pairs: sum(_differ(a, b) for a, b in pairs))


def _by_units(first: Sequence[LayerRecord], second: Sequence[LayerRecord]) -> Iterator[Pair[LayerRecord]]:
    """First those that weigh or slide a window, then what follows each of them."""
    for a, b in _aligned(_units(first), _units(second), (_unit(_does), _unit(_kind_and_kernel), _unit(_kind_and_channels))):
        if a is not None and b is not None:
            yield a[0], b[0]
        rest = (a or ())[1 if b else 0 :], (b or ())[1 if a else 0 :]
        yield from _aligned(*rest, (_does, _kind))


def _by_layers(first: Sequence[LayerRecord], second: Sequence[LayerRecord]) -> Iterator[Pair[LayerRecord]]:
    yield from _aligned(first, second, (_does, _kind_and_kernel, _kind_and_channels))


def _units(layers: Sequence[LayerRecord]) -> list[tuple[LayerRecord, ...]]:
    """The layers, divided before each that weighs or slides a window."""
    starts = [i for i, layer in enumerate(layers) if i == 0 or layer.macs or layer.formula is not None]
    return [tuple(layers[start:end]) for start, end in pairwise([*starts, len(layers)])]


def _unit(key: Callable[[LayerRecord], Hashable]) -> Callable[[tuple[LayerRecord, ...]], Hashable]:
    return lambda unit: key(unit[0])


def _aligned(first: Sequence[T], second: Sequence[T], keys: Sequence[Callable[[T], Hashable]]) -> Iterator[Pair[T]]:
    """Pairs with the same first key, in order; what lies between them is aligned by the next key, and at last by number."""
    if not keys and len(first) == len(second):
        yield from zip(first, second, strict=True)
        return
    if not keys:
        yield from ((each, None) for each in first)
        yield from ((None, each) for each in second)
        return
    matcher = SequenceMatcher(None, [keys[0](each) for each in first], [keys[0](each) for each in second], autojunk=False)
    for what, a, a_end, b, b_end in matcher.get_opcodes():
        if what == "equal":
            yield from zip(first[a:a_end], second[b:b_end], strict=True)
        else:
            yield from _aligned(first[a:a_end], second[b:b_end], keys[1:])


def _does(layer: LayerRecord) -> Hashable:
    """What a layer does, whatever it is called and however large its map is."""
    return (layer.operation, layer.settings, layer.params, channels(layer) if layer.params else None)


def _kind_and_kernel(layer: LayerRecord) -> Hashable:
    return (layer.operation, layer.settings.partition(" ")[0])


def _kind_and_channels(layer: LayerRecord) -> Hashable:
    return (layer.operation, channels(layer))


def _kind(layer: LayerRecord) -> Hashable:
    return layer.operation


def channels(layer: LayerRecord) -> tuple[int, int]:
    """How many channels or features go into a layer and come out."""
    axis = -1 if layer.operation in CHANNELS_LAST else 0
    return layer.input_shape[axis], layer.output_shape[axis]


def _totals(part: _Part) -> PartTotals:
    fields = [layer.receptive_field for layer in part.layers]
    return PartTotals(
        layers=len(part.layers),
        output_shape=part.output_shape,
        params=sum(layer.params for layer in part.layers),
        macs=sum(layer.macs for layer in part.layers),
        receptive_field=None if None in fields else max(field for field in fields if field is not None),
        followed=all(layer.unfollowed is None for layer in part.layers),
    )
