"""What is worth knowing about a network's layers, each with its reason in one sentence."""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from convatlas.arith.shapes import effective_kernel
from convatlas.inspection.passage import Step
from convatlas.records.ledger import Hint, LedgerRow

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
WEIGHERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

SMALL_MAP = "A map of one row or column has no places left to tell apart: the network was made for larger images."
IDLE_BIAS = "BatchNorm subtracts each channel's mean, and any bias with it."
SKIPPED = "A stride larger than the kernel never looks at the pixels in between."
WIDE_PADDING = "With more padding than half the kernel, units at the rim see nothing but padding."
NARROW_VIEW = "No unit of the last map sees the whole image, so that large objects are put together in the head only."


def hints_of(steps: Sequence[Step], rows: Sequence[LedgerRow], input_shape: tuple[int, int, int]) -> tuple[Hint, ...]:
    """All that is worth knowing, in the order of the rows. `steps` are the rows' own."""
    eaters: dict[int, list[Step]] = {}
    for step in steps:
        for source in step.fed_by:
            eaters.setdefault(source, []).append(step)
    found = [*_idle_biases(steps, eaters), *_windows(rows), *_last_map(rows, input_shape)]
    return tuple(sorted(found, key=lambda hint: hint.row))


def _idle_biases(steps: Sequence[Step], eaters: Mapping[int, Sequence[Step]]) -> Iterator[Hint]:
    for i, step in enumerate(steps):
        module, then = step.module, eaters.get(i, [])
        if not isinstance(module, WEIGHERS) or module.bias is None or not then:
            continue
        # A linear layer on a map works along its columns, and not along the channels that BatchNorm works on.
        along_channels = not isinstance(module, nn.Linear) or step.outputs[0].dim() == 2
        if along_channels and all(isinstance(eater.module, NORMS) for eater in then):
            yield Hint(i, "idle bias", "a bias before BatchNorm", IDLE_BIAS)


def _windows(rows: Sequence[LedgerRow]) -> Iterator[Hint]:
    for i, row in enumerate(rows):
        if row.window is None or "ranspose" in row.operation:
            continue
        spans = [effective_kernel(kernel, dilation) for kernel, dilation in _pairs(row.window.kernel, row.window.dilation)]
        if any(span < stride for span, stride in _pairs(spans, row.window.stride)):
            yield Hint(i, "skipped pixels", f"kernel {max(spans)}, stride {max(row.window.stride)}", SKIPPED)
        if any(2 * padding > span for span, padding in _pairs(spans, row.window.padding)):
            yield Hint(i, "wide padding", f"kernel {max(spans)}, padding {max(row.window.padding)}", WIDE_PADDING)


def _pairs(first: Sequence[int], second: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(first, second, strict=True)


def _last_map(rows: Sequence[LedgerRow], input_shape: tuple[int, int, int]) -> Iterator[Hint]:
    """What holds for the last map with rows and columns: that of the last stage, in a network with stages."""
    staged = [i for i, row in enumerate(rows) if row.name.startswith("stages.")]
    maps = [i for i in staged or range(len(rows)) if _is_map(rows[i])]
    if not maps:
        return
    last, (_, height, width) = rows[maps[-1]], input_shape
    if min(last.output_shape[-2:]) < 2 <= min(height, width):
        yield Hint(maps[-1], "small map", f"the last map is {last.output_shape[-2]}x{last.output_shape[-1]}", SMALL_MAP)
    field = last.receptive_field
    if all(row.unfollowed is None for row in rows) and field is not None and field < max(height, width):
        yield Hint(maps[-1], "narrow view", f"the last map's units see {field} of {max(height, width)} pixels", NARROW_VIEW)


def _is_map(row: LedgerRow) -> bool:
    """Whether a row gives a map (C, H, W): rows and columns that lie some pixels apart, or what the last stage gives."""
    return len(row.output_shape) == 3 and (row.jump is not None or row.name.startswith("stages."))
