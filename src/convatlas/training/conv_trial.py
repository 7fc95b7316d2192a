"""Which convolution algorithm is fastest here, measured for each shape and pass, once for each machine.

What is timed is what training would do, the copies into wide images and back included (`wide`), on random numbers of the shape
in question. Torch's own algorithm stays unless another was clearly faster.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.arith.order import FEWEST
from convatlas.data.places import cache_folder
from convatlas.errors import UserError
from convatlas.inspection.running import check_runs
from convatlas.inspection.timing import compare_times
from convatlas.records import codec, storage
from convatlas.records.engine import ConvChoice
from convatlas.training import wide
from convatlas.training.environment import environment
from convatlas.training.stand_in import met_in_training

GROUPS = (8, 16, 32, 128)
"""How many images side by side are tried, beside torch's own algorithm."""
WORTH = 0.95
"""Another algorithm is chosen if it takes at most this share of the time of torch's own."""
LARGEST_MAP = 64
"""Wider maps are not tried: there, weights are read seldom already, and the trial itself would take long."""
IMAGES = 128
"""So many images, or a batch if that is smaller, are tried: time goes with their number, and which is fastest does not."""
WARMUP = 2
Told = Callable[[int, int, str], None]
"""Is told how many shapes are done, of how many, and which is next."""


@dataclass(frozen=True)
class ConvCall:
    """A convolution that training meets. `weight` is (out_channels, C, rows, columns); pairs are (rows, columns) too.

    `x` is the shape of what is tried, (N, C, H, W), N being `IMAGES` at most. `shape` is what a choice is kept under; `to_data`
    says whether a gradient by the input is wanted: the first layer's is not.
    """

    shape: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    bias: bool
    dtype: torch.dtype
    to_data: bool

    @property
    def key(self) -> str:
        """What the result is remembered under."""
        return self.shape if self.to_data else f"{self.shape}, no gradient by the input"


@dataclass(frozen=True)
class _Best:
    """The group that one pass is best computed in, and seconds: of torch's own algorithm, and of this one."""

    group: int
    own: float
    seconds: float


def conv_calls(model: nn.Module, x: Tensor, *, autocast_dtype: torch.dtype | None) -> tuple[ConvCall, ...]:
    """The convolutions that could be computed otherwise when `model` is trained on batches like x (N, C, H, W), as it meets them.

    One for each shape. `autocast_dtype` is the format that a CPU's autocast computes in; None means no autocast. A copy of the
    model is run: model and random state are left as they were. Raises UserError.
    """
    check_runs(model, x)
    found: dict[str, ConvCall] = {}

    def met(conv: nn.Conv2d, x: Tensor) -> None:
        if wide.can_widen(conv, x) and x.shape[3] <= LARGEST_MAP:
            call = _call(conv, x)
            if call.shape not in found or call.to_data:
                found[call.shape] = call

    met_in_training(model, [x], (nn.Conv2d,), met, autocast_dtype=autocast_dtype)
    return tuple(found.values())


def _call(conv: nn.Conv2d, x: Tensor) -> ConvCall:
    assert not isinstance(conv.padding, str)
    dtype = wide.computed_in(x)
    return ConvCall(
        shape=wide.conv_shape(x, conv, dtype=dtype),
        x=(min(len(x), IMAGES), *x.shape[1:]),
        weight=tuple(conv.weight.shape),
        stride=(conv.stride[0], conv.stride[1]),
        padding=(conv.padding[0], conv.padding[1]),
        bias=conv.bias is not None,
        dtype=dtype,
        to_data=x.requires_grad,
    )


def try_convolutions(
    model: nn.Module, x: Tensor, *, dtype: torch.dtype, seconds_each: float, progress: Told | None = None
) -> tuple[ConvChoice, ...]:
    """The fastest algorithms for the convolutions of `model`, trained on batches like x (N, C, H, W), in the order it meets them.

    `dtype` is the format that training computes in: if it is not the weights' own, autocast's. Each pass of each shape is timed
    for `seconds_each` or a few rounds, whichever takes longer, unless this machine's result is known. Raises UserError.
    """
    own = next((each.dtype for each in model.parameters()), dtype)
    calls = conv_calls(model, x, autocast_dtype=None if dtype == own else dtype)
    known, choices = remembered(), []
    for i, call in enumerate(calls):
        if progress is not None:
            progress(i, len(calls), call.shape)
        if call.key not in known:
            known[call.key] = _tried(call, seconds_each)
            remember({call.key: known[call.key]})
        choices.append(known[call.key])
    if progress is not None:
        progress(len(calls), len(calls), "")
    return tuple(choices)


@torch.no_grad()
def _tried(call: ConvCall, seconds: float) -> ConvChoice:
    """Time the passes of one convolution, one after the other."""
    generator = torch.Generator().manual_seed(0)
    window: Any = {"stride": call.stride, "padding": call.padding}
    layout = wide.layout(call.x[3], kernel=(call.weight[2], call.weight[3]), **window)
    x, weight = (torch.randn(shape, generator=generator).to(call.dtype) for shape in (call.x, call.weight))
    x, weight = (each.to(memory_format=torch.channels_last) for each in (x, weight))  # of one channel too
    bias = torch.zeros(call.weight[0], dtype=call.dtype) if call.bias else None
    given: dict[str, Any] = {"weight": weight, "layout": layout}
    grad = torch.ones_like(wide.forward_pass(x, weight, bias=bias, layout=layout, group=1))
    passes: dict[str, Callable[..., object]] = {
        "forward": partial(wide.forward_pass, x, weight, bias=bias, layout=layout),
        "to_data": partial(wide.backward_pass, grad, x, wanted=(True, False, False), **given),
        "to_weights": partial(wide.backward_pass, grad, x, wanted=(False, True, call.bias), **given),
    }
    wanted = [name for name in passes if name != "to_data" or call.to_data]
    best = {name: _best(passes[name], len(x), seconds=seconds) for name in wanted}
    own, taken = sum(each.own for each in best.values()), sum(each.seconds for each in best.values())
    return ConvChoice(call.shape, gain=own / max(taken, 1e-9), **{name: each.group for name, each in best.items()})


def _best(computed: Callable[..., object], images: int, *, seconds: float) -> _Best:
    """The group in which a pass over so many images takes the least time, judged round by round against torch's own.

    It is taken if even the upper end of its interval is below torch's own: the best of several noisy ratios is lucky otherwise.
    """
    groups = dict.fromkeys(wide.group_for(images, wanted) for wanted in (1, *GROUPS))
    runs = {str(group): partial(computed, group=group) for group in groups}
    record = compare_times(runs, seconds=seconds, least=FEWEST, warmup=WARMUP)
    medians = {timing.name: timing.median for timing in record.timings}
    fastest = min(record.ratios, key=lambda ratio: ratio.median)
    name = fastest.name if fastest.median <= WORTH and fastest.high < 1 else "1"
    return _Best(int(name), medians["1"], medians[name])


_memory: dict[str, dict[str, ConvChoice]] = {}
"""What was found in this process, by machine: it serves where nothing can be written."""


def remembered() -> dict[str, ConvChoice]:
    """What is known of this machine, with as many threads as torch has now, by `ConvCall.key`."""
    machine = _machine()
    kept = _read().get(machine)
    on_disk = _choices(kept) if isinstance(kept, dict) else {}
    return {**on_disk, **_memory.get(machine, {})}


def remember(choices: Mapping[str, ConvChoice]) -> None:
    """Keep choices, by `ConvCall.key`, for this machine: in this process, and on disk where that can be written."""
    machine = _machine()
    _memory.setdefault(machine, {}).update(choices)
    kept = _read()
    kept[machine] = codec.to_plain(remembered())
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        storage.write_text(_file(), json.dumps(kept, indent=1) + "\n")
    except (OSError, UserError):  # it only saves measuring again
        return


def _machine() -> str:
    """What a result holds for: processor, version of torch, threads."""
    here = environment()
    return f"{here.processor}, torch {here.torch}, {torch.get_num_threads()} threads"


def _file() -> Path:
    return cache_folder().parent / "convolutions.json"


def _read() -> dict[str, Any]:
    """All machines' choices as they are on disk; none if the file is missing, damaged or somebody else's."""
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _choices(kept: Mapping[str, object]) -> dict[str, ConvChoice]:
    """Those that can be read."""
    return dict(_readable(kept.items()))


def _readable(items: Iterable[tuple[str, object]]) -> Iterable[tuple[str, ConvChoice]]:
    for key, plain in items:
        try:
            choice = codec.from_plain(ConvChoice, plain, where=key)
        except UserError:
            continue
        if key.startswith(choice.shape):
            yield key, choice
