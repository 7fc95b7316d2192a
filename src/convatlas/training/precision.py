"""Which device, number format and memory layout a run takes, and why. Only what was measured to gain is chosen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.records.run import Choices, Recipe

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
MEMORY_FORMATS = ("auto", "channels_last", "contiguous")


def choose(recipe: Recipe, model: nn.Module) -> Choices:
    """What the recipe's `auto` settings come to for `model` on this machine. Raises UserError for what it does not have."""
    device = _device(recipe.device)
    precision, reason = _precision(recipe.precision, model, device)
    layout = "channels_last" if recipe.memory_format == "auto" else recipe.memory_format
    return Choices(device, precision, layout, torch.get_num_threads(), reason)


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("there is no CUDA device here", fix="Use --device cpu, or install PyTorch's CUDA build (see README).")
    return "cuda" if available and wanted != "cpu" else "cpu"


def _precision(wanted: str, model: nn.Module, device: str) -> tuple[str, str]:
    """The number format and the reason for it."""
    able = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_computes_bf16()
    it = "this GPU" if device == "cuda" else "this processor"
    if wanted == "bf16" and not able:
        raise UserError(f"{it} has no bf16 instructions", fix="Use --precision fp32.")
    if wanted != "auto":
        return wanted, "as the recipe says"
    if not able:
        return "fp32", f"{it} has no bf16 instructions"
    if device == "cpu" and _has_strided_depthwise(model):
        return "fp32", "strided depthwise convolutions are slower in bf16 on CPUs"
    return "bf16", f"{it} has bf16 instructions"


@contextmanager
def without_tf32() -> Iterator[None]:
    """While it lasts, fp32 is fp32 in a GPU's convolutions too, which torch otherwise computes with 10 bits of the mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def cpu_computes_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices by instructions of its own (AMX or AVX-512 BF16)."""
    return cpu_multiplies_tiles() or "avx512_bf16" in _cpu_flags()


def cpu_multiplies_tiles() -> bool:
    """Whether this processor has AMX, which multiplies whole tiles of bf16 matrices at once."""
    return "amx_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _has_strided_depthwise(model: nn.Module) -> bool:
    """Whether the backward pass would meet oneDNN's slow path: measured 12 times slower in bf16 than in fp32 (docs/LOG.md)."""
    convs = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    return any(c.groups == c.in_channels > 1 and max(c.stride) > 1 for c in convs)


def autocast(choices: Choices) -> torch.autocast:
    """The context in which a forward pass computes in the chosen format."""
    return torch.autocast(choices.device, dtype=torch.bfloat16, enabled=choices.precision == "bf16")


def memory_format(choices: Choices) -> torch.memory_format:
    """The chosen layout as torch names it."""
    return torch.channels_last if choices.memory_format == "channels_last" else torch.contiguous_format
