"""What comes back to each layer along a run: `gradients.jsonl`, a line before the first step and one an epoch."""

from pathlib import Path

import torch
from torch import Tensor, nn

from convatlas.data.augment import normalise
from convatlas.data.batches import centre
from convatlas.data.dataset import DataSet
from convatlas.inspection.gradients import gradient_flow
from convatlas.records import codec, storage
from convatlas.records.gradients import FILE, read_flows
from convatlas.records.run import Recipe

IMAGES = 128


def fixed_batch(data: DataSet, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same `size` training images and labels for the same seed, not augmented: (N, C, H, W) float32 and (N,)."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:size]
    chosen = data.train.subset(order)
    seen = centre(chosen.images, data.image_size)
    images = normalise(seen, mean=data.mean, std=data.std, dtype=torch.float32, memory_format=torch.contiguous_format)
    return images, chosen.labels


def keep_flow(folder: Path, model: nn.Module, *, data: DataSet, recipe: Recipe, epoch: int) -> None:
    """Measure the run's network as it is after `epoch` epochs, and append it. Nothing of the run is changed."""
    images, labels = fixed_batch(data, size=IMAGES, seed=recipe.seed)
    device = next(model.parameters()).device
    flow = gradient_flow(model, images.to(device), labels.to(device), name=recipe.model, seed=recipe.seed, epoch=epoch)
    storage.append_line(folder / FILE, codec.to_line(flow))


def forget_flows(folder: Path, *, after: int) -> None:
    """Drop the flows of later epochs: they will be trained, and written, again."""
    if (folder / FILE).exists():
        kept = [flow for flow in read_flows(folder).flows if flow.epoch <= after]
        storage.write_text(folder / FILE, "".join(codec.to_line(flow) for flow in kept))
