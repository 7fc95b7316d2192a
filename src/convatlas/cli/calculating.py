"""`convatlas calc`: the formulas of convolutional networks, worked out for numbers of one's own."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from convatlas.arith.cost import conv_macs, conv_params, separable_ratio
from convatlas.arith.receptive_field import PIXELS, Extent, through_window
from convatlas.arith.shapes import conv_output_size, effective_kernel, pool_output_size, size_formula
from convatlas.cli.console import count, counted, tell, tell_json, tell_table
from convatlas.cli.options import Json
from convatlas.errors import UserError
from convatlas.records.calc import Separable, Stack, StackLayer, Timing, WindowSum
from convatlas.records.ledger import Window

LARGEST = 20_000
LARGEST_MAP = 200_000_000
"""Values of the largest map that is measured."""
WORD = re.compile(r"(?:conv|pool)?(\d+)(?:/(\d+))?(?:p(\d+))?(?:d(\d+))?")

app = typer.Typer(name="calc", no_args_is_help=True, help="Formulas, worked out: output sizes, costs, receptive fields.")

Size = Annotated[str, typer.Option("--size", help="Pixels a side, 32 or 32x48 (rows x columns).")]
Kernel = Annotated[str, typer.Option("--kernel", help="Kernel, 5 or 3x5.")]
StrideOption = Annotated[str, typer.Option("--stride", help="Stride, 2 or 2x1.")]
Padding = Annotated[str, typer.Option("--padding", help="Padding on each side, 1 or 1x2.")]
Dilation = Annotated[str, typer.Option("--dilation", help="Dilation, 2 or 2x1.")]
In = Annotated[int | None, typer.Option("--in", help="Channels that come in.")]
Out = Annotated[int | None, typer.Option("--out", help="Channels that come out.")]


@app.command("conv")
def conv(
    size: Size,
    kernel: Kernel,
    stride: StrideOption = "1",
    padding: Padding = "0",
    dilation: Dilation = "1",
    in_channels: In = None,
    out_channels: Out = None,
    groups: Annotated[int, typer.Option("--groups", help="Groups of channels.")] = 1,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="Without a bias for each output channel.")] = False,
    as_json: Json = False,
) -> None:
    """The output size of a convolution, pixels that it never reads, and what it costs."""
    window = _window(size, kernel, stride, padding, dilation)
    channels = _channels(in_channels, out_channels, groups)
    found = _window_sum(window, ceil_mode=False, channels=channels, groups=groups, bias=not no_bias)
    _tell_window(found, as_json=as_json)


@app.command("pool")
def pool(
    size: Size,
    kernel: Kernel,
    stride: Annotated[str | None, typer.Option("--stride", help="Stride (default: the kernel).")] = None,
    padding: Padding = "0",
    dilation: Dilation = "1",
    ceil_mode: Annotated[bool, typer.Option("--ceil", help="Round up, as GoogLeNet's poolings do.")] = False,
    as_json: Json = False,
) -> None:
    """The output size of a pooling, maximum or average."""
    window = _window(size, kernel, kernel if stride is None else stride, padding, dilation)
    for taps, pad in zip(window["kernel"], window["padding"], strict=True):
        if 2 * pad > taps:
            raise UserError(
                f"padding {pad} is more than half the kernel of {taps}", fix="Torch's poolings take at most half of it."
            )
    _tell_window(_window_sum(window, ceil_mode=ceil_mode, channels=None, groups=1, bias=False), as_json=as_json)


def _window(size: str, kernel: str, stride: str, padding: str, dilation: str) -> dict[str, tuple[int, int]]:
    return {
        "size": _pair("--size", size, least=1),
        "kernel": _pair("--kernel", kernel, least=1),
        "stride": _pair("--stride", stride, least=1),
        "padding": _pair("--padding", padding, least=0),
        "dilation": _pair("--dilation", dilation, least=1),
    }


def _pair(option: str, text: str, *, least: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip())
    if found is None:
        raise UserError(f"{option} is {text!r}", fix="Give a whole number, or two as rows x columns, such as 3x5.")
    pair = int(found[1]), int(found[2] or found[1])
    if not all(least <= each <= LARGEST for each in pair):
        raise UserError(f"{option} is {text}", fix=f"Give whole numbers from {least} to {LARGEST:,}.")
    return pair


def _channels(in_channels: int | None, out_channels: int | None, groups: int) -> tuple[int, int] | None:
    if in_channels is None and out_channels is None:
        return None
    if in_channels is None or out_channels is None:
        missing = "--in" if in_channels is None else "--out"
        raise UserError(f"{missing} is missing", fix="Costs take both --in and --out; sizes take neither.")
    for option, value in (("--in", in_channels), ("--out", out_channels), ("--groups", groups)):
        if not 1 <= value <= LARGEST:
            raise UserError(f"{option} is {value}", fix=f"Give a whole number from 1 to {LARGEST:,}.")
    for option, value in (("--in", in_channels), ("--out", out_channels)):
        if value % groups:
            raise UserError(f"{value} channels ({option}) cannot be dealt out to {groups} groups", fix="Give a divisor of both.")
    return in_channels, out_channels


def _window_sum(
    window: dict[str, tuple[int, int]], *, ceil_mode: bool, channels: tuple[int, int] | None, groups: int, bias: bool
) -> WindowSum:
    outputs, formulas, unread, skipped, same = [], [], [], [], []
    for size, kernel, stride, padding, dilation in zip(
        *(window[name] for name in ("size", "kernel", "stride", "padding", "dilation")), strict=True
    ):
        span = effective_kernel(kernel, dilation)
        if size + 2 * padding < span:
            raise UserError(
                f"a kernel that spans {span} pixels does not fit into {size} with padding {padding}",
                fix=f"It takes a size of {span - 2 * padding} or more, or a padding of {-(-(span - size) // 2)}.",
            )
        output = pool_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
        outputs.append(output)
        formulas.append(size_formula(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode))
        unread.append(max(0, min(size, size + padding - ((output - 1) * stride + span))))
        inside = min(output, conv_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation))
        skipped.append(_skipped(size, inside, kernel=kernel, stride=stride, padding=padding, dilation=dilation))
        same.append((span - 1) // 2 if span % 2 else None)
    cost = None if channels is None else _cost(window["kernel"], channels, groups, outputs=outputs, bias=bias)
    return WindowSum(
        output=(outputs[0], outputs[1]),
        formulas=tuple(dict.fromkeys(formulas)),
        unread=(unread[0], unread[1]),
        skipped=(skipped[0], skipped[1]),
        same_padding=(same[0], same[1]),
        params=None if cost is None else cost[0],
        macs=None if cost is None else cost[1],
    )


def _skipped(size: int, output: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pixels before the last window's end that no tap of any window touches."""
    padded = bytearray(max(size + 2 * padding, (output - 1) * stride + effective_kernel(kernel, dilation)))
    for tap in range(kernel):
        places = slice(tap * dilation, tap * dilation + (output - 1) * stride + 1, stride)
        padded[places] = b"\x01" * output
    end = (output - 1) * stride + effective_kernel(kernel, dilation)
    return padded[padding : min(padding + size, end)].count(0)


def _cost(kernel: tuple[int, int], channels: tuple[int, int], groups: int, *, outputs: list[int], bias: bool) -> tuple[int, int]:
    area, (before, after) = kernel[0] * kernel[1], channels
    params = conv_params(in_channels=before, out_channels=after, kernel_area=area, groups=groups, bias=bias)
    macs = conv_macs(in_channels=before, out_channels=after, kernel_area=area, groups=groups, out_pixels=outputs[0] * outputs[1])
    return params, macs


def _tell_window(found: WindowSum, *, as_json: bool) -> None:
    if as_json:
        tell_json(found)
        return
    names = ("", "") if len(found.formulas) == 1 else ("rows: ", "columns: ")
    for name, formula in zip(names, found.formulas, strict=False):
        tell(f"{name}{formula}")
    tell(f"output: {found.output[0]}x{found.output[1]}")
    for what, pair in (("at the far end no window reaches", found.unread), ("between windows are skipped", found.skipped)):
        if any(pair):
            tell(f"{counted(pair[0], 'row')} and {counted(pair[1], 'column')} {what}")
    if None not in found.same_padding:
        tell(f"padding {_once(found.same_padding)} keeps the size at stride 1")
    else:
        tell("no padding keeps the size at stride 1: the window spans an even number of pixels")
    if found.params is not None and found.macs is not None:
        tell(f"{found.params:,} parameters, {found.macs:,} MACs ({count(found.macs)})")


def _once(pair: tuple[int | None, int | None]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


@app.command("depthwise")
def depthwise(
    kernel: Annotated[int, typer.Option("--kernel", help="Kernel, an odd number.")],
    in_channels: Annotated[int, typer.Option("--in", help="Channels that come in.")],
    out_channels: Annotated[int, typer.Option("--out", help="Channels that come out.")],
    size: Annotated[int, typer.Option("--size", help="Pixels a side of the map.")] = 56,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Images that are measured at once.")] = 1,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Formulas only.")] = False,
    as_json: Json = False,
) -> None:
    """A full convolution beside a depthwise separable one: cost by formula, and time as measured here."""
    given = {"--kernel": (kernel, 101), "--in": (in_channels, 65_536), "--out": (out_channels, 65_536), "--size": (size, 4096)}
    for option, (value, most) in {**given, "--batch-size": (batch_size, 4096)}.items():
        if not 1 <= value <= most:
            raise UserError(f"{option} is {value}", fix=f"Give a whole number from 1 to {most:,}.")
    if kernel % 2 == 0:
        raise UserError(f"--kernel is {kernel}", fix="Give an odd number, so that the map keeps its size.")
    if not no_measure and batch_size * max(in_channels, out_channels) * size * size > LARGEST_MAP:
        raise UserError("such maps are too large to be measured", fix="Give a smaller --size, or --no-measure.")
    found = _separable(
        kernel,
        in_channels,
        out_channels,
        size,
        times=None if no_measure else _measured(kernel, in_channels, out_channels, size, batch_size),
    )
    if as_json:
        tell_json(found)
    else:
        _tell_separable(found, kernel, out_channels)


def _separable(kernel: int, before: int, after: int, size: int, *, times: dict[str, Timing] | None) -> Separable:
    full = _cost((kernel, kernel), (before, after), 1, outputs=[size, size], bias=False)
    each = _cost((kernel, kernel), (before, before), before, outputs=[size, size], bias=False)
    mixing = _cost((1, 1), (before, after), 1, outputs=[size, size], bias=False)
    shares = None
    if times is not None:
        from convatlas.inspection.timing import ratio

        shares = ratio(times["separable"], times["full"])
    return Separable(
        full_params=full[0],
        separable_params=each[0] + mixing[0],
        full_macs=full[1],
        separable_macs=each[1] + mixing[1],
        ratio=(each[1] + mixing[1]) / full[1],
        by_formula=separable_ratio(out_channels=after, kernel_area=kernel * kernel),
        measured=shares,
        full_seconds=None if times is None else times["full"].median,
        separable_seconds=None if times is None else times["separable"].median,
        n=0 if times is None else times["full"].n,
        threads=0 if times is None else times["full"].threads,
    )


def _measured(kernel: int, before: int, after: int, size: int, batch_size: int) -> dict[str, Timing]:
    import torch
    from torch import nn

    from convatlas.cli.progress import loading_bar
    from convatlas.inspection.timing import timed

    padding = kernel // 2
    full = nn.Conv2d(before, after, kernel, padding=padding, bias=False)
    each = nn.Conv2d(before, before, kernel, padding=padding, groups=before, bias=False)
    separable = nn.Sequential(each, nn.Conv2d(before, after, 1, bias=False))
    x = torch.rand(batch_size, before, size, size)
    with torch.no_grad(), loading_bar() as progress:
        actions = {"full": lambda: full(x), "separable": lambda: separable(x)}
        return timed(actions, seconds=2.0, tick=lambda share: progress("measuring", round(100 * share), 100))


def _tell_separable(found: Separable, kernel: int, out_channels: int) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("parameters", "MACs", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = (
        ("full", found.full_params, found.full_macs, found.full_seconds),
        ("depthwise, then 1x1", found.separable_params, found.separable_macs, found.separable_seconds),
    )
    for name, params, macs, seconds in rows:
        table.add_row(name, f"{params:,}", f"{macs:,}", "-" if seconds is None else f"{1000 * seconds:.2f}")
    tell_table(table)
    tell(f"ratio of MACs: {found.ratio:.4f} = 1/{out_channels} + 1/{kernel}^2")
    if found.measured is not None:
        middle, low, high = found.measured
        tell(
            f"ratio of times here: {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {found.n} rounds in turns, "
            f"{counted(found.threads, 'thread')}, forward, fp32)"
        )
        if middle > 1.2 * found.ratio:
            tell("Less time is saved than the formula says: a depthwise kernel uses each value that it reads for few products,")
            tell("so that memory, and not arithmetic, sets its pace.")


@app.command("stack")
def stack(
    kernels: Annotated[list[str], typer.Argument(help="Kernels in order, such as 3 3 3, or 3 3/2 3 with a stride of 2.")],
    channels: Annotated[int, typer.Option("--channels", help="Channels in and out of every layer.")] = 64,
    as_json: Json = False,
) -> None:
    """Several small kernels beside the one large kernel that sees as much."""
    if not 1 <= channels <= LARGEST:
        raise UserError(f"--channels is {channels}", fix=f"Give a whole number from 1 to {LARGEST:,}.")
    layers = _followed([_word(text) for text in kernels], kernels, size=None)
    single = layers[-1].receptive_field
    params = sum(conv_params(in_channels=channels, out_channels=channels, kernel_area=layer.kernel**2) for layer in layers)
    found = Stack(
        layers, channels, params, single, conv_params(in_channels=channels, out_channels=channels, kernel_area=single**2)
    )
    if as_json:
        tell_json(found)
        return
    _tell_layers(layers)
    tell("")
    told = " + ".join(f"{layer.kernel}^2" for layer in layers)
    tell(f"stacked: ({told}) * {channels}^2 = {found.params:,} parameters, a non-linearity after each")
    tell(f"one {single}x{single}: {single}^2 * {channels}^2 = {found.single_params:,} parameters, one non-linearity")
    tell(f"ratio {found.params / found.single_params:.3f}, for weights and, without strides, for MACs")


@app.command("rf")
def rf(
    layers: Annotated[
        list[str],
        typer.Argument(help="Windows such as conv7/2p3 pool3/2p1 (kernel/stride p padding d dilation), or a model."),
    ],
    size: Annotated[int | None, typer.Option("--size", help="Pixels a side of the image, to follow the maps' sizes too.")] = None,
    as_json: Json = False,
) -> None:
    """Receptive field, jump and start, window by window."""
    if len(layers) == 1 and WORD.fullmatch(layers[0]) is None:
        layers = _of_model(layers[0])
    if size is not None and not 1 <= size <= LARGEST:
        raise UserError(f"--size is {size}", fix=f"Give a whole number from 1 to {LARGEST:,}.")
    found = _followed([_word(text) for text in layers], layers, size=size)
    if as_json:
        tell_json(found)
        return
    _tell_layers(found)
    tell("")
    tell("field: pixels of the image that a unit sees; jump: pixels between neighbours; start: the first pixel of unit 0.")


def _of_model(name: str) -> list[str]:
    """The windows on the way that sees most, of a network without branches."""
    from convatlas.cli.showing import ledger_of

    if Path(name).suffix == "" and "." not in name and not name.isidentifier():
        raise _unknown_word(name)
    record = ledger_of(name, image_size=None, in_chans=None, num_classes=None)
    if any(len(row.inputs) > 1 for row in record.rows):
        raise UserError(
            f"{name} has branches, so that its windows are no list", fix=f"`convatlas show {name}` follows every path."
        )
    return [
        _as_word(row.window, row.operation) for row in record.rows if row.window is not None and not row.name.startswith("head")
    ]


def _as_word(window: Window, operation: str) -> str:
    kind = "pool" if "ool" in operation else "conv"
    settings = (("/", window.stride[0], 1), ("p", window.padding[0], 0), ("d", window.dilation[0], 1))
    return f"{kind}{window.kernel[0]}" + "".join(f"{mark}{value}" for mark, value, usual in settings if value != usual)


def _word(text: str) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a word."""
    found = WORD.fullmatch(text.strip())
    if found is None:
        raise _unknown_word(text)
    kernel, stride, padding, dilation = (
        int(each) if each else usual for each, usual in zip(found.groups(), (0, 1, 0, 1), strict=True)
    )
    if not (1 <= kernel <= LARGEST and 1 <= stride <= LARGEST and padding <= LARGEST and 1 <= dilation <= LARGEST):
        raise UserError(f"{text!r} has a number that cannot be", fix=f"Kernel, stride and dilation are from 1 to {LARGEST:,}.")
    return kernel, stride, padding, dilation


def _unknown_word(text: str) -> UserError:
    return UserError(
        f"{text!r} is no window",
        fix="Write kernel/stride p padding d dilation, such as conv3, pool2/2 or conv7/2p3; or name a model.",
    )


def _followed(windows: list[tuple[int, int, int, int]], words: list[str], *, size: int | None) -> tuple[StackLayer, ...]:
    extent: Extent = PIXELS
    found = []
    for word, (kernel, stride, padding, dilation) in zip(words, windows, strict=True):
        extent = through_window(extent, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        if size is not None:
            size = conv_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
            if size < 1:
                raise UserError(f"at {word} the window does not fit any more", fix="Give a larger --size.")
        field = extent.receptive_field or 0
        found.append(StackLayer(word, kernel, stride, field, extent.jump, int(extent.start), size))
    return tuple(found)


def _tell_layers(layers: tuple[StackLayer, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    sized = any(layer.size is not None for layer in layers)
    table.add_column("window", no_wrap=True)
    for heading in (*(["map"] if sized else []), "field", "jump", "start"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in layers:
        numbers = [*([layer.size] if sized else []), layer.receptive_field, layer.jump, layer.start]
        table.add_row(layer.word, *(str(number) for number in numbers))
    tell_table(table)
