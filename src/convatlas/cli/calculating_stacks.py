"""`convatlas calc stack` and `calc rf`: windows one after the other, what they cost, and how far they see."""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from convatlas.arith import shapes
from convatlas.arith.receptive_field import PIXELS, Extent, through_window
from convatlas.cli.calculating import (
    LARGEST_CHANNELS,
    LARGEST_SIZE,
    LARGEST_WINDOW,
    Pair,
    spent,
    tell_lines,
    tell_prose,
    whole,
)
from convatlas.cli.console import count, counted, printable, tell, tell_json, tell_table
from convatlas.cli.options import Json
from convatlas.errors import UserError, unknown_name
from convatlas.records.calc import FieldCalc, FieldLayer, StackCalc, StackLayer
from convatlas.records.ledger import IMAGE

MOST_LAYERS = 200
KINDS = ("conv", "pool")
LAYER = re.compile(r"(conv|pool)([0-9]{1,9})(?:/([0-9]{1,9}))?(?:p([0-9]{1,9}))?(?:d([0-9]{1,9}))?")


def stack(
    kernels: Annotated[list[str], typer.Argument(help="Kernels in order: 3 3 3, or 3 3/2 3 with a stride of 2.")],
    channels: Annotated[int, typer.Option("--channels", help="Channels in and out of every layer.")] = 64,
    size: Annotated[int, typer.Option("--size", help="Pixels a side of the map before them.")] = 56,
    as_json: Json = False,
) -> None:
    """Small kernels one after the other, against the one large kernel that sees as far."""
    whole("--channels", channels, most=LARGEST_CHANNELS)
    whole("--size", size, most=LARGEST_SIZE)
    pairs = [_kernel(text) for text in kernels]
    steps = list(accumulate((stride for _, stride in pairs), lambda a, b: a * b))
    extents = _followed([{"kernel": kernel, "stride": stride} for kernel, stride in pairs])
    layers = tuple(
        _stacked(*pair, extent, channels, -(-size // step)) for pair, extent, step in zip(pairs, extents, steps, strict=True)
    )
    field, last = layers[-1].receptive_field, extents[-1]
    found = StackCalc(channels, size, layers, _stacked(field, steps[-1], last, channels, layers[-1].output))
    if as_json:
        tell_json(found)
    else:
        _tell_stack(found)


def _kernel(text: str) -> Pair:
    found = re.fullmatch("([0-9]{1,9})(?:/([0-9]{1,9}))?", text.strip())
    pair = (int(found[1]), int(found[2] or 1)) if found else (0, 0)
    if not all(1 <= each <= LARGEST_WINDOW for each in pair):
        fix = f"Give whole numbers from 1 to {LARGEST_WINDOW:,}: a kernel, such as 3, or with its stride, such as 3/2."
        raise UserError(f"{text!r} is no kernel", fix=fix)
    return pair


def _stacked(kernel: int, stride: int, extent: Extent, channels: int, output: int) -> StackLayer:
    weights, macs = spent(channels, channels, kernel**2, 1, pixels=output**2)
    return StackLayer(kernel, stride, extent.receptive_field or 0, extent.jump, output, weights, macs)


def _tell_stack(found: StackCalc) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("kernel", "field", "jump", "map", "weights", "MACs"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right", no_wrap=True)
    for layer in found.layers:
        numbers = (layer.receptive_field, layer.jump, layer.output, f"{layer.weights:,}", count(layer.macs))
        table.add_row(f"{layer.kernel}/{layer.stride}" if layer.stride > 1 else str(layer.kernel), *map(str, numbers))
    tell_table(table)
    single, squared = found.single, f"{found.channels}^2"
    small = " + ".join(f"{layer.kernel}^2" for layer in found.layers)
    large = f"one {single.kernel}x{single.kernel}" + (f" stride {single.stride}" if single.stride > 1 else "")
    tell_lines(
        [
            ("stack", f"({small}) * {squared} = {found.weights:,} weights; {found.macs:,} MACs"),
            (large, f"{single.kernel}^2 * {squared} = {single.weights:,} weights; {single.macs:,} MACs"),
            ("ratio", f"{found.weights / single.weights:.3g} of weights, {found.macs / single.macs:.3g} of MACs"),
            ("non-linear", f"{counted(len(found.layers), 'time')}, against once"),
        ]
    )
    tell_prose("All without biases, padded so that a stride of 1 keeps the size (an even kernel on one side more).")


def rf(
    layers: Annotated[
        list[str], typer.Argument(help="conv7/2p3 pool3/2p1 (kernel/stride p padding d dilation), or a model: resnet18.")
    ],
    size: Annotated[int | None, typer.Option("--size", help="Pixels a side of the image, to see the maps' sizes.")] = None,
    as_json: Json = False,
) -> None:
    """How far the units see, layer by layer: of layers in a row, or of a model through all of its branches."""
    if size is not None:
        whole("--size", size, most=LARGEST_SIZE)
    listed = len(layers) > 1 or LAYER.fullmatch(layers[0]) is not None
    found = _listed(layers, size) if listed else _of_model(layers[0], size)
    if as_json:
        tell_json(found)
    else:
        _tell_fields(found)


def _listed(words: Sequence[str], size: int | None) -> FieldCalc:
    windows = [_layer(word) for word in words]
    map_, rows = size, []
    for word, window, extent in zip(words, windows, _followed(windows), strict=True):
        if map_ is not None:
            formula = shapes.size_formula(map_, **window, ceil_mode=False)
            map_ = shapes.conv_output_size(map_, **window)
            if map_ < 1:
                raise UserError(f"at {word} the output would have {formula} pixels a side", fix="Give a larger --size.")
        output, field = None if map_ is None else (map_, map_), extent.receptive_field
        rows.append(FieldLayer(word, "", output, field, field, extent.jump, int(extent.start)))
    return FieldCalc(None, size, tuple(rows))


def _layer(word: str) -> dict[str, int]:
    """Kernel, stride, padding and dilation of a word; a pooling without a stride goes on by its kernel, as in torch."""
    found = LAYER.fullmatch(word)
    if found is None:
        raise _unknown(word, [])
    kernel = int(found[2])
    usual = (kernel, kernel if found[1] == "pool" else 1, 0, 1)
    values = [default if each is None else int(each) for each, default in zip(found.groups()[1:], usual, strict=True)]
    window = dict(zip(("kernel", "stride", "padding", "dilation"), values, strict=True))
    for name, value in window.items():
        if not (name == "padding" or value) or value > LARGEST_WINDOW:
            fix = f"Give whole numbers from 1 to {LARGEST_WINDOW:,}; a padding may be 0."
            raise UserError(f"the {name} of {word} is {value}", fix=fix)
    if found[1] == "pool" and window["padding"] > kernel // 2:
        fix = f"Give {kernel // 2} or less: torch's poolings take no more."
        raise UserError(f"the padding of {word} is more than half its kernel", fix=fix)
    return window


def _followed(windows: Sequence[dict[str, int]]) -> list[Extent]:
    """What unit 0 sees after each of the windows. Raises UserError for more than any network has."""
    if len(windows) > MOST_LAYERS:
        raise UserError(f"there are {len(windows):,} layers", fix=f"Give {MOST_LAYERS} or fewer.")
    return list(accumulate(windows, lambda extent, window: through_window(extent, **window), initial=PIXELS))[1:]


def _of_model(name: str, size: int | None) -> FieldCalc:
    """Those layers of a model of the atlas, or of a factory in a file, that change what is seen."""
    from convatlas.cli.showing import ledger_of
    from convatlas.models.registry import MODELS
    from convatlas.models.user_files import is_user_file

    if name not in MODELS and "{" not in name and not name.endswith((".yaml", ".yml")) and not is_user_file(name):
        raise _unknown(name, MODELS)
    ledger, rows = ledger_of(name, image_size=size, in_chans=None, num_classes=None), []
    sees = [(row.receptive_field, row.least_field, row.jump, row.start) for row in ledger.rows]
    for row, here in zip(ledger.rows, sees, strict=True):
        before = {(1, 1, 1, 0) if i == IMAGE else sees[i] for i in row.inputs}
        if before != {here} or row.unfollowed is not None:
            output = (row.output_shape[-2], row.output_shape[-1]) if len(row.output_shape) == 3 else None
            what = f"{row.operation} {row.settings.removesuffix('no bias')}".strip()  # a bias sees nothing
            rows.append(FieldLayer(row.name, what, output, *here, unfollowed=row.unfollowed))
    return FieldCalc(name, ledger.input_shape[-1], tuple(rows))


def _unknown(word: str, models: Iterable[str]) -> UserError:
    rest = word.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    where = "Layers are written conv7/2p3 (kernel/stride p padding d dilation) or pool2"
    known = [*models, *(kind + rest for kind in KINDS if LAYER.fullmatch(kind + rest))]
    if not models:
        return unknown_name("layer", word, known, where=f"{where}.")
    return unknown_name("layer or model", word, known, where=f"{where}; `convatlas list --all` shows all models.")


def _tell_fields(found: FieldCalc) -> None:
    table = Table(box=None, pad_edge=False)
    sized = found.image_size is not None
    table.add_column("layer", overflow="fold")
    if found.model is not None:
        table.add_column("operation", overflow="fold")
    for heading in (*(["map"] if sized else []), "field", "jump", "start"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in found.layers:
        names = [layer.name, *([layer.what] if found.model is not None else [])]
        output = [] if not sized else ["" if layer.output is None else f"{layer.output[0]}x{layer.output[1]}"]
        table.add_row(*(Text(printable(cell)) for cell in (*names, *output, *_seen(layer))))
    tell_table(table)
    tell("")
    tell_prose("field: pixels a side that a unit can see; jump: pixels between neighbours; start: the first pixel of unit 0.")
    last = found.layers[-1]
    if found.model is None and last.jump is not None and last.start is not None and last.receptive_field is not None:
        ends = f"{last.start} + {last.jump} i to {last.start + last.receptive_field - 1} + {last.jump} i"
        tell_prose(f"Unit i of the last map sees pixels {ends}. What lies before 0 or past the image is padding.")
    for reason in dict.fromkeys(layer.unfollowed for layer in found.layers if layer.unfollowed):
        tell_prose(f"?: {reason}")


def _seen(layer: FieldLayer) -> list[str]:
    if layer.unfollowed is not None:
        return ["?", "?", "?"]
    field, least = ("all" if each is None else f"{each:,}" for each in (layer.receptive_field, layer.least_field))
    return [
        field if field == least else f"{least}-{field}",
        *("" if each is None else str(each) for each in (layer.jump, layer.start)),
    ]
