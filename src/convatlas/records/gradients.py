"""How gradients flow through a network: what is measured of each layer, at initialisation and along a run."""

from dataclasses import dataclass
from pathlib import Path

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Recipe


@dataclass(frozen=True)
class LayerGradient:
    """One layer that has weights, in the order of the data.

    `weight` and `weight_gradient` are the norms of its weights and of their gradient. `activation` is the standard deviation
    of its output, `activation_gradient` the root of the mean square of the loss's gradient by the output, times the number of
    images in the batch, so that neither depends on the batch's size.
    """

    name: str
    operation: str
    params: int
    weight: float
    weight_gradient: float
    activation: float
    activation_gradient: float


@dataclass(frozen=True)
class GradientFlow:
    """The layers of a network for one batch. `epoch` 0 is before the first step; `loss` is the batch's, in nats.

    `similarity` is the mean cosine between the gradients, by two images that differ little, of a fixed sum of the logits (see
    `inspection.gradients`), None if that was not measured.
    """

    model: str
    seed: int
    epoch: int
    loss: float | None
    layers: tuple[LayerGradient, ...]
    similarity: float | None = None


@dataclass(frozen=True)
class GradientComparison:
    """Several networks, several seeds each, on the same batches. `norm` and `start` say what was changed of all of them."""

    data: str
    image_size: int
    batch_size: int
    seeds: tuple[int, ...]
    norm: str
    start: str
    torch: str
    command: str
    flows: tuple[GradientFlow, ...]


@dataclass(frozen=True)
class RunFlow:
    """A run's flows, epoch by epoch, under the name that a page gives it, with what it was made by."""

    name: str
    recipe: Recipe
    flows: tuple[GradientFlow, ...]


FILE = "gradients.jsonl"
"""The file of a run folder that has a flow for each epoch, from 0 on."""


def read_flows(folder: Path) -> RunFlow:
    """The flows of the run in `folder`, epoch by epoch; a torn last line is left out. Raises UserError if it has none."""
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{folder} has no gradients", fix="Train with --gradients to keep them epoch by epoch.")
    lines = codec.text_of(path).split("\n")[:-1]
    flows = (codec.from_text(GradientFlow, line, where=f"{path}:{i}") for i, line in enumerate(lines, 1) if line)
    return RunFlow(folder.resolve().name, codec.read(Recipe, folder / "recipe.json"), tuple(flows))
