"""Before the first step: does the recipe hold together, does the network fit the images, and what does it cost."""

from dataclasses import dataclass

import torch

from convatlas.data.dataset import DataSet
from convatlas.errors import UserError
from convatlas.inspection.trace import trace
from convatlas.layers.network import Network
from convatlas.models.registry import create_model, find_variant
from convatlas.records.model import TraceRecord
from convatlas.records.run import Choices, Recipe, RunSummary
from convatlas.training.environment import environment
from convatlas.training.recipe import check_recipe


@dataclass(frozen=True)
class Facts:
    """What is known of the network before it is trained."""

    family: str
    trace: TraceRecord


def examine(recipe: Recipe, data: DataSet) -> tuple[Network, Facts]:
    """The recipe's network for `data`, on the meta device (shapes without values), and its facts. Raises UserError."""
    check_recipe(recipe)
    if data.fingerprint != recipe.data_fingerprint:
        raise UserError(
            f"this is not the data that the run was made with ({recipe.data_fingerprint} then, {data.fingerprint} now)",
            fix="Give the original with --data-root.",
        )
    if recipe.batch_size > len(data.train):
        what = f"batches of {recipe.batch_size} images are larger than the {len(data.train)} training images"
        raise UserError(what, fix=f"Give --batch-size {max(len(data.train), 2)} or less.")
    check_fits(recipe.model, data)
    with torch.device("meta"):
        model = network_for(recipe.model, data, size=data.image_size)
    record = trace(model, (data.in_chans, data.image_size, data.image_size))
    return model, Facts(find_variant(recipe.model).family, record)


def check_fits(name: str, data: DataSet) -> None:
    """Raise a UserError, with the layer, the formula and the least size that will do, if the images are too small."""
    variant = find_variant(name)
    misfit = _misfit(name, data, data.image_size)
    if misfit is None:
        return
    low, high = data.image_size, variant.image_size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _misfit(name, data, middle) is None else (middle, high)
    what = f"images of {data.image_size} pixels do not fit {name}: {misfit.what}"
    raise UserError(what, fix=f"It takes {high} or more: --image-size {high}.")


def _misfit(name: str, data: DataSet, size: int) -> UserError | None:
    """Why images of `size` pixels do not fit, found on the meta device; None if they do."""
    try:
        with torch.device("meta"):
            trace(network_for(name, data, size=size), (data.in_chans, size, size))
    except UserError as error:
        return error
    return None


def network_for(name: str, data: DataSet, *, size: int) -> Network:
    """The network called `name`, for the classes and channels of `data` and images of `size` pixels."""
    return create_model(name, num_classes=data.num_classes, in_chans=data.in_chans, image_size=size)


def first_summary(recipe: Recipe, data: DataSet, facts: Facts, choices: Choices) -> RunSummary:
    """The summary of a run that is about to begin."""
    return RunSummary(
        status="running",
        cause=None,
        model=recipe.model,
        family=facts.family,
        data=recipe.data,
        seed=recipe.seed,
        image_size=data.image_size,
        in_chans=data.in_chans,
        num_classes=data.num_classes,
        params=facts.trace.params,
        macs=facts.trace.macs,
        n_train=len(data.train),
        n_val=len(data.val),
        n_test=len(data.test),
        epochs_done=0,
        images_seen=0,
        train_seconds=0.0,
        images_per_second=0.0,
        val_accuracy=None,
        test_accuracy=None,
        test_looks=0,
        skipped_images=data.skipped,
        choices=choices,
        environment=environment(),
    )
