"""What a function was called with, in words: `dim 1`, `0 2 3 1`, `with layer_scale`."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from convatlas.records.ledger import Window

NAMELESS = frozenset({"inplace", "training", "out", "dtype", "device", "return_indices"})
"""Options that say nothing about what a layer computes."""
MOST_WORDS = 8
"""Functions with more arguments than that are not told apart by them."""


def call_settings(arguments: Iterable[Any], options: Mapping[str, Any], names: Mapping[int, str]) -> str:
    """The arguments that are no tensors, and the network's own tensors by their names (`names` has them by id)."""
    words = [word for value in arguments if (word := _word(value))]
    words += [f"{key} {word}" for key, value in options.items() if key not in NAMELESS and (word := _word(value))]
    words = words[:MOST_WORDS]
    own = [f"with {names[id(value)]}" for value in (*arguments, *options.values()) if id(value) in names]
    return " ".join(words + own)


def window_settings(window: Window) -> str:
    """A window in the words of `settings`: `3x3 stride 2 padding 1 groups 32`."""
    words = [_sides(window.kernel)]
    for word, values, usual in (
        ("stride", window.stride, 1),
        ("padding", window.padding, 0),
        ("dilation", window.dilation, 1),
    ):
        if set(values) != {usual}:
            words.append(f"{word} {values[0] if len(set(values)) == 1 else _sides(values)}")
    return " ".join([*words, *([f"groups {window.groups}"] if window.groups > 1 else [])])


def _sides(values: Iterable[int]) -> str:
    return "x".join(str(value) for value in values)


def _word(value: Any) -> str:
    """A number, a word, several of them, or the parts that are cut out; empty for anything else."""
    match value:
        case Tensor() | None:
            return ""
        case bool() | int() | str():
            return str(value)
        case float():
            return f"{value:g}"
        case slice():
            return ":".join("" if each is None else _word(each) for each in _ends(value))
        case list() | tuple():
            words = [_word(each) for each in value if not isinstance(each, Tensor)]
            return (", " if any(isinstance(each, slice) for each in value) else " ").join(word for word in words if word)
        case _:
            return "..." if value is Ellipsis else ""


def _ends(part: slice) -> list[Any]:
    return [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
