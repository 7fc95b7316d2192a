"""What each strategy trains at a given point of the budget, and with which learning rates: one rule for every family."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from convatlas.layers.network import Network
from convatlas.records.run import Recipe
from convatlas.records.tuning import Tuning
from convatlas.training.optim import OPTIMIZERS
from convatlas.transfer.groups import CLASSIFIER, HEAD, Group, groups_of, norms_and_biases

GRADUAL_SHARE = 0.5
"""The share of the budget after which "gradual" has opened everything. Howard & Ruder open a layer an epoch, then train on."""


@dataclass(frozen=True)
class Opening:
    """What learns for a while: parameters, and the modules that stand still, in evaluation mode. `key` tells it from others."""

    key: str
    trained: tuple[nn.Parameter, ...]
    still: tuple[nn.Module, ...]


def opening(model: Network, tuning: Tuning, share: float) -> Opening:
    """What `tuning` trains of `model` once a `share` of the budget in [0, 1] is spent."""
    groups = groups_of(model)
    order = [group.name for group in groups]
    key = key_at(order, tuning, share)
    if tuning.strategy == "bn-bias":
        learning = dict.fromkeys([*groups[0].parameters, *norms_and_biases(_without_auxiliary(groups))])
        return Opening(key, tuple(learning), ())
    names = _open_names(order, tuning, share)
    trained = tuple(parameter for group in groups if group.name in names for parameter in group.parameters)
    return Opening(key, trained, _still(model, set(trained), only_classifier=names == [CLASSIFIER]))


def key_at(groups: Sequence[str], tuning: Tuning, share: float) -> str:
    """The key of the `opening` at that share of the budget, for a network whose groups have these names.

    It costs next to nothing, so that it can be asked for at every step.
    """
    return "bn-bias" if tuning.strategy == "bn-bias" else ", ".join(_open_names(groups, tuning, share))


def _still(model: Network, trained: set[nn.Parameter], *, only_classifier: bool) -> tuple[nn.Module, ...]:
    """The stem, stages and parts of the head in which nothing learns; each stands still, or moves, as a whole.

    Parts without parameters, such as dropout, stand still where the classifier alone learns: its features are then the same in
    every epoch.
    """
    others = [module for name, module in model.named_children() if name not in ("stem", "stages", "head")]
    parts = [model.stem, *model.stages.children(), *model.head.children(), *others]
    found = []
    for part in parts:
        own = list(part.parameters())
        if not any(each in trained for each in own) if own else only_classifier:
            found.append(part)
    return tuple(found)


def _without_auxiliary(groups: tuple[Group, ...]) -> nn.Module:
    """The modules of all groups as one."""
    return nn.ModuleList(module for group in groups for module in group.modules)


def _open_names(groups: Sequence[str], tuning: Tuning, share: float) -> list[str]:
    names = list(groups)
    if tuning.strategy == "probe" or (tuning.strategy == "lp-ft" and share < tuning.probe_share):
        return names[:1]
    if tuning.strategy == "last-stages":
        stages = [name for name in names if name.startswith("stages.")][: tuning.stages]
        return [name for name in names if name in (CLASSIFIER, HEAD, *stages)]
    if tuning.strategy == "gradual":
        return names[: 1 + min(len(names) - 1, int(share / GRADUAL_SHARE * (len(names) - 1)))]
    return names


def make_tuning_optimizer(model: Network, recipe: Recipe, tuning: Tuning) -> Optimizer:
    """The recipe's optimizer over all that the strategy ever trains; each group of layers has its own multiple of the rate.

    Biases and normalisation are not decayed, as in `make_optimizer`; with "l2-sp" nothing below the classifier is, which its pull
    replaces.
    """
    ever = set(opening(model, tuning, 1.0).trained)
    groups: list[dict[str, object]] = []
    for depth, group in enumerate(groups_of(model)):
        factor = tuning.layer_decay**depth if tuning.strategy == "layer-decay" else 1.0
        factor *= recipe.classifier_lr if group.name == CLASSIFIER else 1.0
        for vectors in (False, True):
            chosen = [each for each in group.parameters if each in ever and (each.ndim <= 1) is vectors]
            decay = 0.0 if vectors or (tuning.strategy == "l2-sp" and group.name != CLASSIFIER) else recipe.weight_decay
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr_factor": factor, "filters": False})
    return OPTIMIZERS[recipe.optimizer](groups, recipe)
