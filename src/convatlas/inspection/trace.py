"""Following one image through a network: every layer's shapes, parameters and cost, without computing a single value."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convatlas.inspection.copying import on_meta
from convatlas.inspection.costs import Arguments, Slide, macs_of, slide_of
from convatlas.inspection.misfit import misfit
from convatlas.inspection.receptive import Follower, Sight, operation_name
from convatlas.inspection.settings import settings
from convatlas.records.model import LayerRecord, TraceRecord


@torch.inference_mode(False)  # within which torch would hide what composite operations consist of
def trace(model: nn.Module, input_shape: tuple[int, int, int]) -> TraceRecord:
    """The layers of `model` in the order in which one image of `input_shape` (C, H, W) passes them, in evaluation mode.

    Runs on the meta device, on a copy: nothing is computed and the caller's model is not touched. Layers are modules without
    children; parameters and MACs outside of these count in the totals only. MACs are those of convolutions and matrix
    products. Receptive fields are followed through all operations, in modules or not; what comes after
    one without a rule says so. Raises UserError, with the formula, where the image is too small for a layer.
    """
    copy = on_meta(model).eval()
    image = torch.empty(1, *input_shape, device="meta")
    costs = _Costs()
    follower = Follower(image, observer=costs.add)
    layers: list[LayerRecord] = []
    stages: list[tuple[tuple[int, ...], Sight]] = []
    for stage in _submodule(copy, "stages").children():
        stage.register_forward_hook(lambda _, args, output: stages.append((tuple(output.shape[1:]), follower.sight(output))))
    with _hooked(copy, layers, follower, costs), follower, torch.no_grad():
        copy(image)
    auxiliary = _count(_submodule(model, "auxiliary").parameters())
    last = stages[-1][1] if stages else follower.last_map()
    return TraceRecord(
        input_shape=input_shape,
        layers=tuple(layers),
        stage_shapes=tuple(shape for shape, _ in stages),
        params=_count(model.parameters()) - auxiliary,
        auxiliary_params=auxiliary,
        macs=costs.total,
        receptive_field=last.receptive_field,
        unfollowed=last.unfollowed,
    )


class _Costs:
    """MACs and windows of the operations that are carried out: in total, and since they were last asked for."""

    def __init__(self) -> None:
        self.total = 0
        self._macs = 0
        self._slides: list[Slide] = []

    def add(self, func: Any, arguments: Arguments, outputs: list[Tensor], depends: bool) -> None:
        """Take an operation in."""
        macs, slide = macs_of(operation_name(func), arguments, outputs), slide_of(operation_name(func), arguments)
        self.total += macs
        self._macs += macs
        self._slides += [] if slide is None else [slide]

    def taken(self) -> tuple[int, list[Slide]]:
        """MACs and windows since the last call."""
        found = self._macs, self._slides
        self._macs, self._slides = 0, []
        return found


@contextmanager
def _hooked(model: nn.Module, layers: list[LayerRecord], follower: Follower, costs: _Costs) -> Iterator[None]:
    """Record each leaf's passage into `layers`; while it lasts, a layer that its input is too small for says so."""
    handles = []
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def before(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        costs.taken()
        entered.append((name, module, tuple(args[0].shape[1:])))

    def after(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        layers.append(_record(name, module, args[0], output, sight=follower.sight(output), costs=costs.taken()))

    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            handles += [
                module.register_forward_pre_hook(partial(before, name)),
                module.register_forward_hook(partial(after, name)),
            ]
    try:
        yield
    except (RuntimeError, ValueError):
        if entered and (found := misfit(*entered[-1])) is not None:
            raise found from None
        raise
    finally:
        for handle in handles:
            handle.remove()


def _record(
    name: str, module: nn.Module, x: Tensor, output: Tensor, *, sight: Sight, costs: tuple[int, list[Slide]]
) -> LayerRecord:
    macs, slides = costs
    windowed = len(slides) == 1 and len(slides[0].window.kernel) == output.dim() - 2
    return LayerRecord(
        name=name,
        operation=type(module).__name__,
        settings=settings(module),
        input_shape=tuple(x.shape[1:]),
        output_shape=tuple(output.shape[1:]),
        params=_count(module.parameters()),
        macs=macs,
        receptive_field=sight.receptive_field,
        jump=sight.jump,
        unfollowed=sight.unfollowed,
        formula=slides[0].formulas[0] if windowed else None,
    )


def _submodule(model: nn.Module, name: str) -> nn.Module:
    """The direct submodule `name`, which networks of the atlas have and others may not: then an empty one."""
    return dict(model.named_children()).get(name, nn.Identity())


def _count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)
