"""`convatlas calc`: the formulas of convolutional networks, worked out for numbers of one's own: a single window.

Several windows one after the other stand in `calculating_stacks`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from convatlas.arith import shapes
from convatlas.arith.cost import conv_macs, conv_params, macs_per_value, separable_ratio
from convatlas.cli.console import OUT, count, counted, printable, tell, tell_json, tell_table
from convatlas.cli.options import Json
from convatlas.errors import UserError
from convatlas.records.calc import (
    AxisCalc,
    ConvCost,
    DepthwiseCalc,
    LayerCost,
    TimingComparison,
    WindowCalc,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_SIZE, LARGEST_WINDOW, LARGEST_CHANNELS = 100_000, 10_000, 100_000
MOST_MACS, MOST_VALUES = 50e9, 100e6
"""Of one measured layer: more would take minutes, or memory that a small machine does not have."""
SILENT = 2.0
"""Seconds after which a measurement shows how far it is."""
WIDE = 1.5
"""An interval whose ends are further apart than by this factor says little."""
Pair = tuple[int, int]

app = typer.Typer(name="calc", help="Formulas, worked out: output sizes, costs, receptive fields.")

Size = Annotated[str, typer.Option("--size", help="Pixels of the map: 32, or rows x columns as 32x48.")]
Kernel = Annotated[str, typer.Option("--kernel", help="Kernel: 5, or 3x5.")]
Stride = Annotated[str, typer.Option("--stride", help="Stride: 2, or 2x1.")]
Padding = Annotated[str, typer.Option("--padding", help="Zeros on each side: 1, or 1x2.")]
Dilation = Annotated[str, typer.Option("--dilation", help="Steps between taps: 2, or 2x1.")]
In = Annotated[int | None, typer.Option("--in", help="Channels that come in, for costs.")]
Out = Annotated[int | None, typer.Option("--out", help="Channels that come out, for costs.")]


# One window


@app.command("conv")
def conv(
    size: Size,
    kernel: Kernel,
    stride: Stride = "1",
    padding: Padding = "0",
    dilation: Dilation = "1",
    in_channels: In = None,
    out_channels: Out = None,
    groups: Annotated[int, typer.Option("--groups", help="Groups of channels.")] = 1,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="Without a bias for each output channel.")] = False,
    as_json: Json = False,
) -> None:
    """A convolution: the size that comes out, the pixels that it reads and never reads, and what it costs."""
    channels = _channels(in_channels, out_channels, groups)
    sides = _sides(size, kernel, stride, padding, dilation)
    rows, columns = (_axis(side, given, ceil_mode=False, pooling=False) for side, given in zip(SIDES, sides, strict=True))
    cost = None
    if channels is not None:
        weights, macs = spent(*channels, rows.kernel * columns.kernel, groups, pixels=rows.output * columns.output)
        cost = LayerCost(*channels, groups, weights, 0 if no_bias else channels[1], macs)
    _tell_window(WindowCalc("convolution", rows, columns, False, cost), as_json=as_json)


@app.command("pool")
def pool(
    size: Size,
    kernel: Kernel,
    stride: Annotated[str | None, typer.Option("--stride", help="Stride: 2, or 2x1 (default: the kernel).")] = None,
    padding: Padding = "0",
    dilation: Dilation = "1",
    ceil_mode: Annotated[bool, typer.Option("--ceil", help="Round up, as GoogLeNet's poolings do.")] = False,
    as_json: Json = False,
) -> None:
    """A pooling, of maxima or averages: the size that comes out, and the pixels that it reads and never reads."""
    sides = _sides(size, kernel, kernel if stride is None else stride, padding, dilation)
    rows, columns = (_axis(side, given, ceil_mode=ceil_mode, pooling=True) for side, given in zip(SIDES, sides, strict=True))
    _tell_window(WindowCalc("pooling", rows, columns, ceil_mode, None), as_json=as_json)


SIDES = ("row", "column")


def _sides(size: str, kernel: str, stride: str, padding: str, dilation: str) -> list[dict[str, int]]:
    """Size and window along rows and along columns."""
    pairs = {
        "size": _pair("--size", size, most=LARGEST_SIZE),
        "kernel": _pair("--kernel", kernel),
        "stride": _pair("--stride", stride),
        "padding": _pair("--padding", padding, least=0),
        "dilation": _pair("--dilation", dilation),
    }
    return [{name: pair[k] for name, pair in pairs.items()} for k in (0, 1)]


def _pair(option: str, text: str, *, least: int = 1, most: int = LARGEST_WINDOW) -> Pair:
    found = re.fullmatch("([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip())
    if found is None or not all(least <= int(each) <= most for each in found.groups(found[1])):
        fix = f"Give a whole number from {least} to {most:,}, or two as rows x columns, such as 3x5."
        raise UserError(f"{option} is {text!r}", fix=fix)
    return int(found[1]), int(found[2] or found[1])


def whole(option: str, value: int, *, most: int) -> int:
    """The value, a whole number from 1 to `most`; else UserError."""
    if not 1 <= value <= most:
        raise UserError(f"{option} is {value}", fix=f"Give a whole number from 1 to {most:,}.")
    return value


def _channels(in_channels: int | None, out_channels: int | None, groups: int) -> Pair | None:
    given = {"--in": in_channels, "--out": out_channels}
    missing = [option for option, value in given.items() if value is None]
    if len(missing) == 2 and groups == 1:
        return None
    if missing:
        raise UserError(f"{' and '.join(missing)} missing", fix="Costs and groups take --in and --out; sizes take neither.")
    whole("--groups", groups, most=LARGEST_CHANNELS)
    for option, value in given.items():
        if whole(option, value or 0, most=LARGEST_CHANNELS) % groups:
            fix = "Give a --groups that divides both --in and --out."
            raise UserError(f"{groups} groups do not divide {value} channels ({option})", fix=fix)
    return in_channels or 0, out_channels or 0


def _axis(side: str, given: dict[str, int], *, ceil_mode: bool, pooling: bool) -> AxisCalc:
    """A window along one side, worked out. Raises UserError where it does not fit, or where torch refuses it."""
    size, kernel, stride, padding, dilation = given.values()
    if pooling and padding > kernel // 2:
        fix = f"Give {kernel // 2} or less: torch's poolings take no more, so that no window is all padding."
        raise UserError(f"--padding is {padding}, more than half the kernel of {kernel}", fix=fix)
    span = shapes.effective_kernel(kernel, dilation)
    if size + 2 * padding < span:
        least, pad = shapes.least_size(kernel=kernel, padding=padding, dilation=dilation), -(-(span - size) // 2)
        more = "" if pooling and pad > kernel // 2 else f", or a --padding of {pad} or more"
        raise UserError(
            f"the kernel spans {counted(span, side)}, and the padded map has {size} + 2*{padding} = {size + 2 * padding}",
            fix=f"Give a --size of {least} or more{more}.",
        )
    window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    output = shapes.pool_output_size(size, **window, ceil_mode=ceil_mode)
    same = shapes.same_padding(size, kernel=kernel, stride=stride, dilation=dilation)
    return AxisCalc(
        **given,
        output=output,
        formula=shapes.size_formula(size, **window, ceil_mode=ceil_mode),
        **dict(zip(UNREAD, shapes.unread(shapes.pixels_read(size, outputs=output, **window)), strict=True)),
        padding_only=shapes.padding_only(size, outputs=output, **window),
        same_padding=None if same is not None and pooling and same > kernel // 2 else same,
    )


UNREAD = ("unread_start", "unread_between", "unread_end")


def _tell_window(found: WindowCalc, *, as_json: bool) -> None:
    if as_json:
        tell_json(found)
        return
    rows, columns = found.rows, found.columns
    alike = rows == columns
    lines = [("output", f"{rows.output}x{columns.output}, of {rows.size}x{columns.size}")]
    for name, axis in [("rows and columns", rows)] if alike else [("rows", rows), ("columns", columns)]:
        lines += [(name, axis.formula), ("", _reads(axis)), *(("", text) for text in _remarks(axis))]
    if found.cost is not None:
        lines += list(_costs(found.cost, rows, columns))
    tell_lines(lines)


def _reads(axis: AxisCalc) -> str:
    """Which pixels the first and the last output read."""
    reach = axis.dilation * (axis.kernel - 1)
    first, last = -axis.padding, (axis.output - 1) * axis.stride - axis.padding
    holes = f", every {_nth(axis.dilation)}" if axis.dilation > 1 and axis.kernel > 1 else ""
    outside = f" (the map is 0 to {axis.size - 1})" if first < 0 or last + reach >= axis.size else ""
    ends = dict.fromkeys([(0, first), (axis.output - 1, last)])
    said = [f"output {i} reads {begin}" + (f" to {begin + reach}" if reach else "") for i, begin in ends]
    return f"{', '.join(said)}{holes}{outside}"


def _nth(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _remarks(axis: AxisCalc) -> Iterable[str]:
    """What is never read, and how to keep the size."""
    places = {"at the start": axis.unread_start, "between others": axis.unread_between, "at the end": axis.unread_end}
    never = ", ".join(f"{number:,} {where}" for where, number in places.items() if number)
    yield f"never read: {axis.unread:,} of {axis.size:,} ({never})" if never else "every pixel is read"
    if axis.padding_only:
        yield f"{counted(axis.padding_only, 'output')} of {axis.output:,} read padding only"
    wanted = -(-axis.size // axis.stride)
    goal = "keeps the size" if axis.stride == 1 else f"gives {axis.size}/{axis.stride} = {wanted}, rounded up"
    if axis.same_padding is None:
        yield f"no padding that is alike on both sides {goal}"
    elif axis.output != wanted or axis.padding == axis.same_padding:
        yield f"padding {axis.same_padding} {goal}"


def _costs(cost: LayerCost, rows: AxisCalc, columns: AxisCalc) -> Iterable[tuple[str, str]]:
    kernel, each = f"{rows.kernel}*{columns.kernel}", cost.in_channels // cost.groups
    biases = f", and {cost.biases:,} biases: {cost.weights + cost.biases:,}" if cost.biases else ""
    yield "parameters", f"{cost.out_channels}*{each}*{kernel} = {cost.weights:,}{biases}"
    pixels = f"{rows.output}*{columns.output}"
    yield "MACs", f"{pixels}*{cost.out_channels}*{each}*{kernel} = {cost.macs:,}"


def tell_lines(lines: Sequence[tuple[str, str]]) -> None:
    """What is told beside its name, both wrapped on a narrow terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in lines:
        table.add_row(Text(name), Text(printable(text)))
    OUT.print(table)


def tell_prose(text: str) -> None:
    """Sentences, wrapped between words."""
    OUT.print(Text(printable(text)))


# Depthwise


@app.command("depthwise")
def depthwise(
    kernel: Kernel,
    in_channels: Annotated[int, typer.Option("--in", help="Channels that come in.")],
    out_channels: Annotated[int, typer.Option("--out", help="Channels that come out.")],
    size: Size = "56",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Images that are measured at once.")] = 1,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Formulas only.")] = False,
    as_json: Json = False,
) -> None:
    """A standard convolution against a depthwise separable one: costs by formula, and times as measured here."""
    taps, pixels = _pair("--kernel", kernel, most=99), _pair("--size", size, most=LARGEST_SIZE)
    if any(each % 2 == 0 for each in taps):
        raise UserError(f"--kernel is {kernel}", fix="Give an odd number, so that padding keeps the size.")
    before, after = (
        whole(option, value, most=LARGEST_CHANNELS) for option, value in (("--in", in_channels), ("--out", out_channels))
    )
    whole("--batch-size", batch_size, most=4096)
    costed = partial(_cost, pixels=prod(pixels))
    standard = costed("standard", before, after, prod(taps), 1)
    parts = costed("depthwise", before, before, prod(taps), before), costed("pointwise", before, after, 1, 1)
    shape = (batch_size, before, *pixels)
    if not no_measure:
        _affordable(standard, after, shape)
    times = (None, None) if no_measure else _measured(taps, after, shape)
    ratio = separable_ratio(out_channels=after, kernel_area=prod(taps))
    found = DepthwiseCalc(taps, before, after, pixels, standard, *parts, ratio, batch_size, *times)
    (tell_json if as_json else _tell_depthwise)(found)


def _cost(name: str, before: int, after: int, area: int, groups: int, *, pixels: int) -> ConvCost:
    weights, macs = spent(before, after, area, groups, pixels=pixels)
    per_value = macs_per_value(macs, weights=weights, values_in=before * pixels, values_out=after * pixels)
    return ConvCost(name, weights, macs, per_value)


def spent(before: int, after: int, area: int, groups: int, *, pixels: int) -> Pair:
    """Weights and MACs of a convolution that gives a map of so many pixels."""
    return (
        conv_params(in_channels=before, out_channels=after, kernel_area=area, groups=groups),
        conv_macs(in_channels=before, out_channels=after, kernel_area=area, groups=groups, out_pixels=pixels),
    )


def _affordable(standard: ConvCost, after: int, shape: tuple[int, ...]) -> None:
    """Refuse to measure what would take minutes, or more memory than a small machine has."""
    images, before, *pixels = shape
    largest = max(images * max(before, after) * prod(pixels), standard.weights)
    if images * standard.macs > MOST_MACS or largest > MOST_VALUES:
        raise UserError("such layers take too much time or memory to be measured", fix="Add --no-measure, or give less.")


def _measured(kernel: Pair, after: int, shape: tuple[int, ...]) -> tuple[TimingComparison, TimingComparison]:
    """Both ways in turns: forward, then forward and backward, with a bar if that takes long."""
    import torch

    from convatlas.cli.progress import loading_bar
    from convatlas.inspection.timing import compare_times

    begun = monotonic()
    with torch.random.fork_rng(devices=[]):  # weights and image are drawn, and the caller's random numbers go on as before
        layers, image = _both(kernel, shape[1], after), torch.rand(shape)
    with loading_bar() as bar:

        def show(stage: int, _: int, share: float) -> None:
            if monotonic() - begun > SILENT:
                bar("measuring", round(50 * (stage + share)), 100)

        with torch.no_grad():
            calls = {name: partial(layer, image) for name, layer in layers.items()}
            forward = compare_times(calls, progress=partial(show, 0))
        steps = {name: _step(layer, image) for name, layer in layers.items()}
        return forward, compare_times(steps, progress=partial(show, 1))


def _both(kernel: Pair, before: int, after: int) -> "dict[str, nn.Module]":
    """A standard convolution, and a depthwise and a pointwise one, that keep the size."""
    from torch import nn

    padding = (kernel[0] // 2, kernel[1] // 2)
    each = nn.Conv2d(before, before, kernel, padding=padding, groups=before, bias=False)
    return {
        "standard": nn.Conv2d(before, after, kernel, padding=padding, bias=False),
        "separable": nn.Sequential(each, nn.Conv2d(before, after, 1, bias=False)),
    }


def _step(layer: "nn.Module", image: "Tensor") -> Callable[[], object]:
    """Forward and backward, by the weights and, as within a network, by what comes in."""
    import torch

    source = image.clone().requires_grad_()
    wanted = [source, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(source).sum(), wanted)


def _tell_depthwise(found: DepthwiseCalc) -> None:
    kernel, pair = f"{found.kernel[0]}x{found.kernel[1]}", (found.depthwise, found.pointwise)
    tell(f"{kernel}, {found.in_channels} to {found.out_channels} channels, on {found.size[0]}x{found.size[1]}, without biases")
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("weights", "MACs", "MACs/value"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in (found.standard, *pair):
        table.add_row(cost.name, f"{cost.weights:,}", count(cost.macs), _figure(cost.macs_per_value))
    table.add_row("separable", f"{sum(cost.weights for cost in pair):,}", count(sum(cost.macs for cost in pair)), "")
    tell_table(table)
    area = f"({found.kernel[0]}*{found.kernel[1]})"
    lines = [("by formula", f"1/{found.out_channels} + 1/{area} = {found.ratio:.4f} of weights and MACs")]
    for name, times in (("forward", found.forward), ("and backward", found.training)):
        lines += [] if times is None else [(name, _timed(times))]
    tell_lines(lines)
    if found.forward is not None:
        tell_prose(_verdict(found, found.forward))


def _figure(value: float) -> str:
    """In three digits, or as a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _timed(times: TimingComparison) -> str:
    standard, separable = times.timings
    (ratio,) = times.ratios
    said = [f"{each.median * 1e3:.3g} ms (quartiles {each.lower * 1e3:.3g} to {each.upper * 1e3:.3g})" for each in times.timings]
    return (
        f"{ratio.median:.3f} of the time (95 % interval of the median {ratio.low:.3f} to {ratio.high:.3f}, n = {standard.n}): "
        f"standard {said[0]}, {separable.name} {said[1]}"
    )


def _verdict(found: DepthwiseCalc, times: TimingComparison) -> str:
    """How the measured time compares with the formula. Why it differs was not measured: the usual reason is told as such."""
    (ratio,) = times.ratios
    run = f"{counted(found.batch_size, 'image')}, float32, processor, {counted(times.threads, 'thread')}, torch {times.torch}"
    machine = f"Measured here: {run}."
    if times.busy:
        machine += f" The machine was busy (load {times.load:g}, {counted(times.cores, 'core')}): measure again when it rests."
    if ratio.high > WIDE * ratio.low:
        return f"{machine} The interval is too wide to compare with the formula."
    if ratio.low <= found.ratio <= ratio.high:
        return f"{machine} The formula lies within the interval."
    told = f"{machine} The ratio of times is {ratio.median / found.ratio:.2g} times the formula's."
    if ratio.median < found.ratio or times.busy:
        return told
    few, many = (_figure(cost.macs_per_value) for cost in (found.depthwise, found.standard))
    return (
        f"{told} That is usual: a depthwise convolution does {few} MACs for each value that it moves, the standard one "
        f"{many}, so that memory, and not arithmetic, tends to set its pace. On small maps, starting two layers counts too."
    )
