"""What this machine trains a network fastest with: by rule where a rule holds, by trial where only a trial tells.

Choices are applied from outside and undone afterwards; the network stays as it is. Whether something is tried depends on the
recipe and the network alone, never on a clock: the same command gives the same run. What a trial found is kept in the run's
record, so that a resumed run goes on with it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.arith.order import FEWEST
from convatlas.errors import UserError
from convatlas.inspection.timing import compare_times
from convatlas.layers.network import Network
from convatlas.models.configuration import is_user_file
from convatlas.records.engine import ConvChoice, Reason
from convatlas.records.run import Choices, Recipe
from convatlas.training import precision
from convatlas.training.allocator import allocator
from convatlas.training.conv_trial import try_convolutions
from convatlas.training.substitutes import count_substitutes, substituted
from convatlas.training.watch import Watch
from convatlas.training.wide import widened

Answer = Callable[[Tensor], tuple[tuple[float, Tensor], ...]]
"""Makes of a batch the pairs (weight in the loss, logits), as `Network.training_logits` does."""
Batch = tuple[Tensor, Tensor]
"""Images (N, C, H, W), and labels (N,) or their shares (N, classes)."""
ASSUMED_SPEED = {"cpu": 2e11, "cuda": 2e13}
"""Floating-point operations a second, roughly, by which the length of a run is guessed; a guess decides only what is tried."""
WORTH_TRYING_CONVOLUTIONS = 300.0
WORTH_TRYING_COMPILE = 1800.0
"""Seconds that a run must be expected to last: a trial costs some, and compiling 10 to 100 of them."""
WORTH_TRYING_KERNELS = {"fp32": 200.0, "bf16": 1000.0}
GUESSED_TOO_LONG = {"fp32": 1.0, "bf16": 5.0}
"""Likewise for cuDNN's trials of its kernels: seconds for each image size, by number format, and by how many times a run in it
is guessed too long (3 to 17 on an H200). Trials take up to 13 seconds; in fp32 networks gained 8 and 25 % by them, in bf16 -2 to
4 % (docs/LOG.md)."""
PASSES = 3
"""A training step costs three forward passes: one forward, and two backward (to the data and to the weights)."""


def expected_seconds(recipe: Recipe, *, macs: int, images: int, device: str) -> float:
    """How long the run will take, at a guess: `macs` of one image forward, `images` an epoch."""
    if recipe.minutes is not None:
        return 60 * recipe.minutes
    assert recipe.epochs is not None
    return 2 * PASSES * macs * images * recipe.epochs / ASSUMED_SPEED[device]


def choose(recipe: Recipe, model: Network) -> Choices:
    """What the recipe's `auto` settings come to by rule. Raises UserError for what this machine does not have."""
    choices = precision.choose(recipe, model)
    if recipe.compile == "graphs" and choices.device != "cuda":
        raise UserError("CUDA graphs need a GPU, and this run has none", fix="Leave --compile graphs out.")
    if recipe.compile == "graphs" and recipe.optimizer == "adam":
        raise UserError("steps of Adam, which counts them on the processor, cannot be recorded", fix="Give --optimizer adamw.")
    fast = choices.precision == "bf16" and choices.memory_format != "channels_last" and choices.device == "cpu"
    reasons = (
        Reason("device", choices.device, "as the recipe says" if recipe.device != "auto" else _device_reason(choices.device)),
        Reason("precision", choices.precision, choices.reason),
        Reason("memory format", choices.memory_format, "slow in bf16 on CPUs" if fast else _layout_reason(recipe)),
        Reason("threads", str(choices.threads), _why_threads(choices.threads)),
        Reason("optimizer", recipe.optimizer, "fused, one kernel for all parameters" if _fused(recipe) else "step by step"),
        allocator(),
    )
    return replace(choices, reasons=reasons)


def _why_threads(threads: int) -> str:
    if threads == os.cpu_count():
        return "one for each core, unless --threads says otherwise"
    return "as --threads or OMP_NUM_THREADS says, or as the run began"


def _device_reason(device: str) -> str:
    return "there is one" if device == "cuda" else "there is no GPU that PyTorch can use"


def _layout_reason(recipe: Recipe) -> str:
    if recipe.memory_format != "auto":
        return "as the recipe says"
    return "convolutions are computed so without copies; bf16 on CPUs is 1.2 to 6 times slower otherwise"


def _fused(recipe: Recipe) -> bool:
    return recipe.optimizer in ("adamw", "sgd")


def settle(
    choices: Choices, recipe: Recipe, model: Network, *, batches: Sequence[Batch], expected: float, watch: Watch
) -> Choices:
    """The choices completed by trials on copies of `model`.

    `batches` holds one of each image size that training will meet, the last one of full size; `expected` seconds lie ahead.
    """
    choices = _settle_convolutions(choices, recipe, model, batches=batches, expected=expected, watch=watch)
    choices = _settle_substitutes(choices, recipe, model, batches=batches)
    choices = _without_others(_settle_compile(choices, recipe, model, batch=batches[-1], expected=expected, watch=watch))
    return replace(_settle_recording(choices, recipe), settled=True)


def _settle_convolutions(
    choices: Choices, recipe: Recipe, model: Network, *, batches: Sequence[Batch], expected: float, watch: Watch
) -> Choices:
    if choices.device == "cuda":
        return _settle_kernels(choices, recipe, expected=expected, sizes=len(batches))
    why = _no_convolution_trial(choices, recipe, expected)
    if why is not None:
        return _with(choices, Reason("convolutions", "torch's own", why))
    dtype = torch.bfloat16 if choices.precision == "bf16" else torch.float32
    found: dict[str, ConvChoice] = {}
    for x, _ in batches:
        told = partial(_tell, watch, x.shape[-1])
        tried = try_convolutions(model, x.to(next(model.parameters()).dtype), dtype=dtype, seconds_each=0.0, progress=told)
        found |= {choice.shape: choice for choice in tried}
    other = [c for c in found.values() if (c.forward, c.to_data, c.to_weights) != (1, 1, 1)]
    why = "the fastest in each pass, by trial on this machine"
    chosen = f"side by side for {len(other)} of {len(found)} shapes" if other else "torch's own"
    return _with(replace(choices, convolutions=tuple(found.values())), Reason("convolutions", chosen, why))


def _settle_kernels(choices: Choices, recipe: Recipe, *, expected: float, sizes: int) -> Choices:
    """Whether cuDNN times its kernels for each shape, or takes those that it expects to be the fastest."""
    if recipe.convolutions != "auto":
        tried, why = recipe.convolutions == "trial", "as the recipe says"
    else:
        seconds = expected if recipe.minutes is not None else expected / GUESSED_TOO_LONG[choices.precision]
        tried = seconds >= sizes * WORTH_TRYING_KERNELS[choices.precision]
        why = (
            "the fastest here, by trial"
            if tried
            else "the run is too short for its trials to pay (--convolutions trial has them)"
        )
    chosen = "cuDNN's, tried" if tried else "cuDNN's, as it expects them to be the fastest"
    return _with(replace(choices, kernels_tried=tried), Reason("convolutions", chosen, why))


def _settle_substitutes(choices: Choices, recipe: Recipe, model: Network, *, batches: Sequence[Batch]) -> Choices:
    """By rule, within the limits where the networks at hand gained or lost nothing (docs/LOG.md)."""
    if choices.device != "cpu" or choices.memory_format != "channels_last" or recipe.convolutions == "stock":
        return choices
    images = [x for x, _ in batches]
    found = count_substitutes(model, images, autocast_dtype=torch.bfloat16 if choices.precision == "bf16" else None)
    if not found:
        return choices
    why = "small layers that others compute faster, the same to rounding"
    return _with(replace(choices, substitutes=True), Reason("layers", f"{found} by other operations", why))


def _without_others(choices: Choices) -> Choices:
    """Compiled, all layers are torch's own, and the record says so: others would break the graph at each of them."""
    if not choices.compiled or not (choices.convolutions or choices.substitutes):
        return choices
    why = "compiled, others do not pay"
    told = {about: Reason(about, "torch's own", why) for about in ("convolutions", "layers")}
    reasons = tuple(told.get(each.about, each) for each in choices.reasons)
    return replace(choices, convolutions=(), substitutes=False, reasons=reasons)


def _tell(watch: Watch, size: int, done: int, total: int, shape: str) -> None:
    watch.trying(f"convolutions at {size} pixels, once for this machine", done, total)


def _no_convolution_trial(choices: Choices, recipe: Recipe, expected: float) -> str | None:
    """Why no convolutions are tried; None if they are."""
    if recipe.convolutions == "stock":
        return "as the recipe says"
    if recipe.compile == "on":
        return "the network is compiled"
    if choices.memory_format != "channels_last":
        return "others need channels_last"
    if recipe.convolutions == "auto" and not precision.cpu_multiplies_tiles():
        return "without AMX others gain nothing (--convolutions trial tries them)"
    if recipe.convolutions == "auto" and expected < WORTH_TRYING_CONVOLUTIONS:
        return "the run is too short for trials to pay"
    return None


def _settle_compile(choices: Choices, recipe: Recipe, model: Network, *, batch: Batch, expected: float, watch: Watch) -> Choices:
    if recipe.compile == "graphs":
        return _with(choices, Reason("compile", "off", "steps are recorded instead"))
    if recipe.compile != "auto":
        return _with(replace(choices, compiled=recipe.compile == "on"), Reason("compile", recipe.compile, "as the recipe says"))
    if expected < WORTH_TRYING_COMPILE or recipe.sizes:
        why = (
            "the run is too short for compiling to pay"
            if not recipe.sizes
            else "images change their size, and each is compiled anew"
        )
        return _with(choices, Reason("compile", "off", why))
    watch.trying("torch.compile", 0, 1)
    gain, built = _compile_gain(choices, model, batch)
    watch.trying("torch.compile", 1, 1)
    on = gain > 1.03 and expected * (1 - 1 / gain) > built
    why = f"{gain:.2f} times as fast by trial, after {built:.0f} s of building"
    return _with(replace(choices, compiled=on), Reason("compile", "on" if on else "off", why))


def _settle_recording(choices: Choices, recipe: Recipe) -> Choices:
    """Whether steps are recorded as CUDA graphs. A user's own network may do what a recording would freeze: only if told."""
    if choices.device != "cuda":
        return choices
    if recipe.compile == "graphs":
        return _with(replace(choices, recorded=True), Reason("steps", "recorded", "as the recipe says"))
    why_not = _why_not_recorded(choices, recipe)
    if why_not is not None:
        return _with(choices, Reason("steps", "launched kernel by kernel", why_not))
    why = "a CUDA graph: launching kernels takes small networks longer than computing"
    return _with(replace(choices, recorded=True), Reason("steps", "recorded", why))


def _why_not_recorded(choices: Choices, recipe: Recipe) -> str | None:
    """Why steps are launched kernel by kernel; None if they are recorded."""
    if recipe.compile == "off":
        return "as the recipe says"
    if choices.compiled:
        return "they are compiled"
    if choices.processes > 1:
        return "processes wait for each other"
    if recipe.optimizer == "adam":
        return "Adam, one parameter after the other, counts its steps on the processor"
    return "it is a network of your own (--compile graphs)" if is_user_file(recipe.model) else None


def _compile_gain(choices: Choices, model: Network, batch: Batch) -> tuple[float, float]:
    """How many times as fast a compiled training pass is, and seconds of building it."""
    eager, compiled = (_pass(replace(choices, compiled=on), model, batch) for on in (False, True))
    begun = time.monotonic()
    compiled()
    built = time.monotonic() - begun
    calls, finish = {"eager": eager, "compiled": compiled}, torch.cuda.synchronize if choices.device == "cuda" else None
    record = compare_times(calls, seconds=0.0, least=FEWEST, warmup=2, finish=finish)
    return 1 / record.ratios[0].median, built


def _pass(choices: Choices, model: Network, batch: Batch) -> Callable[[], None]:
    """A forward and a backward pass of a copy of `model`, as chosen."""
    copy, (x, y) = deepcopy(model).train(), batch

    def call() -> None:
        with applied(choices, copy) as answer, torch.random.fork_rng(devices=[]):
            with precision.autocast(choices):
                answers = answer(x)
            torch.stack([w * F.cross_entropy(logits.float(), y) for w, logits in answers]).sum().backward()  # type: ignore[no-untyped-call]

    return call


@contextmanager
def applied(choices: Choices, model: Network) -> Iterator[Answer]:
    """The network's training answers, computed as chosen; everything is as it was afterwards."""
    tuned = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = tuned or (choices.device == "cuda" and choices.kernels_tried is not False)
    try:
        own = nullcontext() if choices.precision == "bf16" else precision.without_tf32()
        # What is only tried may be compiled beside other layers, which would break its graph at each of them.
        others = choices.substitutes and not choices.compiled
        wide = widened(model, () if choices.compiled else choices.convolutions)
        with own, wide, substituted(model) if others else nullcontext():
            answer: Answer = model.training_logits
            yield torch.compile(answer, dynamic=False) if choices.compiled else answer
    finally:
        torch.backends.cudnn.benchmark = tuned


def _with(choices: Choices, reason: Reason) -> Choices:
    return replace(choices, reasons=(*choices.reasons, reason))
