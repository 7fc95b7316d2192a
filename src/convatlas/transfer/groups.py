"""A network's layers in groups, from the top down: what the strategies freeze, open, and give rates of their own."""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.errors import UserError
from convatlas.layers.network import Network

CLASSIFIER, HEAD, STEM = "classifier", "head", "stem"


@dataclass(frozen=True)
class Group:
    """Layers that are frozen or open together: "classifier", "head" (the rest of it), "stages.3" and so on, "stem"."""

    name: str
    modules: tuple[nn.Module, ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Its parameters, each once."""
        return list(dict.fromkeys(each for module in self.modules for each in module.parameters()))


def groups_of(model: Network) -> tuple[Group, ...]:
    """The groups of `model`, the classifier first and the stem last; those without parameters are left out.

    What only training uses (auxiliary heads) is in none of them. Raises UserError for a network without a linear classifier.
    """
    head = dict(model.head.named_children())
    if not isinstance(head.get(CLASSIFIER), nn.Linear):
        raise UserError(
            "this network does not end in a linear classifier, which fine-tuning puts anew",
            fix="Choose another variant: `convatlas list --all`.",
        )
    above = tuple(module for name, module in head.items() if name != CLASSIFIER)
    stages = [Group(f"stages.{name}", (stage,)) for name, stage in model.stages.named_children()]
    groups = (Group(CLASSIFIER, (head[CLASSIFIER],)), Group(HEAD, above), *reversed(stages), Group(STEM, (model.stem,)))
    return tuple(group for group in groups if group.parameters)


def classifier_of(model: Network) -> nn.Linear:
    """The last linear layer."""
    (classifier,) = groups_of(model)[0].modules
    assert isinstance(classifier, nn.Linear)
    return classifier


def norms_and_biases(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of normalisation layers, and every bias."""
    chosen = []
    for module in model.modules():
        # LayerNorm2d of ours is a subclass of torch's.
        if isinstance(module, (_BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            chosen += list(module.parameters(recurse=False))
        else:
            chosen += [each for name, each in module.named_parameters(recurse=False) if name == "bias"]
    return chosen
