"""How much memory a step takes, before anything runs: the step is carried out on tensors that have shapes and no values.

It is the training loop's own step, with autograd and the optimizer, on torch's fake tensors; every block that a real one would
take is counted from when it is made until nobody refers to it. What is not seen is what a library takes within an operation
(workspaces, compiled kernels) and the holes between blocks: docs/LOG.md has what they came to.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convatlas.errors import UserError, first_line
from convatlas.layers.network import Network
from convatlas.records.memory import MemoryUse
from convatlas.records.run import Recipe
from convatlas.training.optim import make_optimizer
from convatlas.transfer.groups import classifier_of

STEPS = 2
"""The optimizer's memory comes with the first, so that the second is the fullest."""


class Blocks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all blocks of memory that operations make while they live, and the most at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living: dict[int, int] = {}
        self.held = self.most = 0
        self.phase = self.when = ""
        self.at_most: frozenset[int] = frozenset()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry the operation out and count the blocks that are new."""
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.add(each)
        return result

    def add(self, tensor: Tensor) -> None:
        """Count the block of `tensor`, if it is not counted yet, until nobody refers to it."""
        storage = tensor.untyped_storage()
        block = block_of(tensor)
        if block in self.living:
            return
        self.living[block] = storage.nbytes()
        weakref.finalize(storage, self._gone, block)
        self.held += storage.nbytes()
        if self.held > self.most:
            self.most, self.when, self.at_most = self.held, self.phase, frozenset(self.living)

    def _gone(self, block: int) -> None:
        self.held -= self.living.pop(block)

    def forget(self) -> None:
        """Begin anew with what is held now as the most."""
        self.most, self.when, self.at_most = self.held, self.phase, frozenset(self.living)


def block_of(tensor: Tensor) -> int:
    """What tells the block of memory of a tensor from all others that live."""
    return int(tensor.untyped_storage()._cdata)


def predict(
    build: Callable[[], Network], recipe: Recipe, shape: tuple[int, ...], *, checkpointing: bool = False, trains: str = "full"
) -> tuple[MemoryUse, MemoryUse]:
    """What inference and training take, in bytes, on a processor, for batches of the recipe's size, images of `shape` (C, H, W).

    `build` makes the network, on any device. With `trains` "head" the classifier alone learns. Raises UserError for a network
    that needs values, or has no classifier to train alone.
    """
    model, mode = build(), FakeTensorMode(allow_non_fake_inputs=True)
    if trains == "head":
        only_the_classifier(model)
    if checkpointing:
        model.set_grad_checkpointing()
    _without_values(model, mode)
    try:
        with mode:
            return _counted(model, recipe, shape)
    except (RuntimeError, ValueError) as error:
        what = f"{recipe.model} takes no step on {recipe.batch_size} images that have no values: {first_line(error)}"
        fix = "Give more images with --batch-size; a forward of your own must not decide by values, nor leave torch."
        raise UserError(what, fix=fix) from error


def only_the_classifier(model: Network) -> None:
    """Let the last linear layer learn and nothing else. Raises UserError for a network that has none."""
    classifier = classifier_of(model)
    model.requires_grad_(False)
    classifier.requires_grad_(True)


def _without_values(model: nn.Module, mode: FakeTensorMode) -> None:
    """Give the network tensors of its shapes in place of its own, laid out as training lays them out."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            bare = tensor.detach().to("meta")
            bare = bare.contiguous(memory_format=torch.channels_last) if bare.ndim == 4 else bare
            made[id(tensor)] = FakeTensor(mode, bare, torch.device("cpu"))
        return made[id(tensor)]

    parameters: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            new = parameters.setdefault(id(parameter), nn.Parameter(fake(parameter), requires_grad=parameter.requires_grad))
            module._parameters[name] = new
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = fake(buffer)


def _counted(model: Network, recipe: Recipe, shape: tuple[int, ...]) -> tuple[MemoryUse, MemoryUse]:
    blocks = Blocks()
    images = torch.empty(recipe.batch_size, *shape).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(recipe.batch_size, dtype=torch.long)
    weights = [*model.parameters(), *model.buffers()]
    for tensor in (*weights, images):
        blocks.add(tensor)
    sizes = {"weights": _bytes(weights), "images": _bytes([images])}
    with blocks:
        with _phase(blocks, "forward"), torch.no_grad():
            blocks.forget()
            model.eval()(images)
        inference = _use(blocks, gradients=[], optimizer=0, **sizes)
        optimizer = make_optimizer(model, recipe)
        for _ in range(STEPS):
            blocks.forget()
            _step(blocks, model, optimizer, images, labels, recipe)
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    kept = [each for state in optimizer.state.values() for each in state.values() if isinstance(each, Tensor)]
    return inference, _use(blocks, gradients=gradients, optimizer=_bytes(kept), **sizes)


def _step(
    blocks: Blocks, model: Network, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, recipe: Recipe
) -> None:
    """One step as the training loop takes it."""
    optimizer.zero_grad()
    with _phase(blocks, "forward"):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            answers = model.train().training_logits(images)
        losses = [weight * F.cross_entropy(z.float(), labels, label_smoothing=recipe.label_smoothing) for weight, z in answers]
    with _phase(blocks, "backward"):
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    del answers, losses
    with _phase(blocks, "update"):
        if recipe.clip_grad > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
        optimizer.step()


@contextmanager
def _phase(blocks: Blocks, name: str) -> Iterator[None]:
    blocks.phase = name
    yield


def _bytes(tensors: list[Tensor]) -> int:
    return sum({block_of(each): each.untyped_storage().nbytes() for each in tensors}.values())


def _use(blocks: Blocks, *, weights: int, images: int, gradients: list[Tensor], optimizer: int) -> MemoryUse:
    there = _bytes([each for each in gradients if block_of(each) in blocks.at_most])
    rest = blocks.most - weights - images - there - optimizer
    return MemoryUse(weights, there, optimizer, images, rest, blocks.most, blocks.when)
