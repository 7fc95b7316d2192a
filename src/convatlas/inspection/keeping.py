"""What training keeps of a batch until the backward pass, told by autograd itself, on the meta device.

Autograd says which tensors it saves. Those that were saved before, and the network's own, take no further memory. What grows
with the batch is told from what does not by a batch of a size that no network has as a number of channels.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convatlas.inspection.passage import Passage, Step, passing
from convatlas.inspection.receptive import memory_of
from convatlas.inspection.shapes_only import short_way

BATCH = 1009
"""Images in the batch: a prime number, so that only what belongs to the images is a multiple of it."""
Key = tuple[str, str, int]
"""A step's module, its operation, and which of those that are called the same it is."""


@dataclass(frozen=True)
class Kept:
    """Bytes kept because of each step, for one image, and those that do not depend on the number of images, in total."""

    by_step: dict[Key, int]
    once: int

    @property
    def total(self) -> int:
        """Bytes for one image."""
        return sum(self.by_step.values())


class Keys:
    """Names steps so that a step in evaluation is found again in training, where there may be others in between."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()

    def of(self, step: Step) -> Key:
        """The key of the next step."""
        pair = (step.name, step.operation)
        self._seen[pair] += 1
        return (*pair, self._seen[pair])


def kept(copy: nn.Module, input_shape: tuple[int, ...], dtype: torch.dtype) -> Kept:
    """What training keeps when images of `input_shape` (C, H, W) pass `copy`, a network on the meta device, in training mode.

    The images themselves count where a layer needs them; what is frozen needs less.
    Raises whatever the network raises on the meta device.
    """
    copy.train()
    images = torch.empty(BATCH, *input_shape, device="meta", dtype=dtype)
    ours = {memory_of(tensor) for tensor in (*copy.parameters(), *copy.buffers())}
    by_step: Counter[Key] = Counter()
    keys, fresh, once = Keys(), [0], [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if memory_of(tensor) not in ours:
            ours.add(memory_of(tensor))
            size = storage.nbytes()
            (fresh if size % BATCH == 0 else once)[0] += size
        return tensor

    def ended(step: Step) -> None:
        by_step[keys.of(step)] += fresh[0] // BATCH
        fresh[0] = 0

    passage = Passage(copy, images, ended=ended)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.device("meta"), passing(passage), short_way(), torch.enable_grad(), hooks:
        answer = copy(images)
    del answer
    return Kept(dict(by_step), once[0])
