"""Before the first step: does the recipe hold together, does the network fit the images, and what does it cost."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from convatlas.data.batches import check_augmentation
from convatlas.data.dataset import DataSet
from convatlas.errors import UserError, first_line
from convatlas.inspection.trace import trace
from convatlas.layers.network import Network
from convatlas.models.configuration import factory_of, is_user_file, model_name
from convatlas.models.registry import create_model, find_variant
from convatlas.models.user_files import code_of, trusted_file
from convatlas.records.model import TraceRecord
from convatlas.records.run import Choices, Recipe, RunSummary
from convatlas.training.environment import environment
from convatlas.training.recipe import check_recipe

CROP_SHARE = 8
"""The shifted crop moves images by up to an eighth of their side: the 4 of 32 pixels that CIFAR-10 recipes use."""


@dataclass(frozen=True)
class Facts:
    """What is known of the network before it is trained: its parameters, and its MACs for one image."""

    family: str
    params: int
    macs: int


def named(recipe: Recipe) -> Recipe:
    """The recipe with its model's canonical name and, for a Python file of the user's, its SHA-256. Raises UserError."""
    name = model_name(recipe.model)
    return replace(recipe, model=name, code_sha256=code_of(name) if is_user_file(name) else None)


def check_code(recipe: Recipe, *, where: str = "the run") -> None:
    """Raise a UserError if the Python file that makes the network is not the one that the recipe was made with."""
    if not is_user_file(recipe.model):
        return
    path, now = trusted_file(factory_of(recipe.model)[0]), code_of(recipe.model)
    if recipe.code_sha256 is None:
        raise UserError(f"the recipe of {where} does not say with which {path} it was made", fix="Make the recipe anew.")
    if now != recipe.code_sha256:
        what = f"{path} has changed since {where} began (SHA-256 {recipe.code_sha256[:12]} then, {now[:12]} now)"
        raise UserError(what, fix="Put the file back as it was, or begin anew.")


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
    if not len(data.val) and (recipe.patience or recipe.schedule == "plateau"):
        what = "there are no validation images by which to tell whether it still gets better"
        raise UserError(what, fix="Leave --patience and the schedule plateau out, or give --validation 0.1.")
    check_code(recipe)
    check_fits(recipe.model, data)
    if recipe.tuning is None:
        _check_augmentation(recipe, data)
    with torch.device("meta"):
        model = network_for(recipe.model, data, size=data.image_size)
    shape = (data.in_chans, data.image_size, data.image_size)
    params, macs = costs(recipe.model, num_classes=data.num_classes, in_chans=shape[0], image_size=shape[1])
    return model, Facts(find_variant(recipe.model).family, params, macs)


def crop_of(recipe: Recipe, data: DataSet) -> int:
    """By how many pixels at most images are shifted."""
    return data.image_size // CROP_SHARE if recipe.crop is None else recipe.crop


def _check_augmentation(recipe: Recipe, data: DataSet) -> None:
    """Raise a UserError if a shift or a blanked square does not fit one of the sizes that images will have."""
    for size in dict.fromkeys([*(int(size) for _, size in recipe.sizes), data.image_size]):
        check_augmentation(
            (size, size),
            crop=crop_of(recipe, data),
            cutout=recipe.cutout,
            flip_rule=recipe.flip_rule,
            crop_fill=recipe.crop_fill,
        )


def costs(name: str, *, num_classes: int, in_chans: int, image_size: int) -> tuple[int, int]:
    """The parameters of a network without what only training uses, and its MACs for one image of that size. Raises UserError.

    Nothing is computed, unless a user's own network needs values: then one that decides by them is given an image of zeros.
    """
    if not is_user_file(name):
        found = _passed(name, num_classes, in_chans, image_size)
        if isinstance(found, UserError):
            raise UserError(found.what, fix=found.fix)
        return found.params, found.macs
    make = partial(create_model, name, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    shape = (in_chans, image_size, image_size)
    with torch.device("meta"):
        model = make()
    own = sum(each.numel() for each in model.parameters()) - sum(each.numel() for each in model.auxiliary_parameters())
    with torch.random.fork_rng(devices=[]):
        try:
            return own, _counted(model, shape)
        except Exception:  # the user's own code may raise anything on the meta device; what it raises with values is told
            return own, _counted(make(), shape)


@lru_cache(maxsize=256)
def _passed(name: str, num_classes: int, in_chans: int, image_size: int) -> TraceRecord | UserError:
    """One image passed through a network of the atlas, or why it does not fit: found once for all runs of a comparison."""
    try:
        with torch.device("meta"):
            model = create_model(name, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
            return trace(model, (in_chans, image_size, image_size))
    except UserError as error:
        return error


def _counted(model: Network, shape: tuple[int, int, int]) -> int:
    """MACs, as torch counts operations while one image passes."""
    device = _device(model)
    try:
        with torch.device(device), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, *shape))
    except Exception as error:  # the user's own code may raise anything
        what = f"the network fails on images of {' x '.join(map(str, shape))}: {first_line(error)}"
        raise UserError(what, fix="Let the factory take in_chans and image_size.") from error
    return int(counter.get_total_flops()) // 2


def _device(model: Network) -> torch.device:
    return next((each.device for each in model.parameters()), torch.device("cpu"))


def check_fits(name: str, data: DataSet) -> None:
    """Raise a UserError, with the layer, the formula and the least size that will do, if the images are too small."""
    if is_user_file(name):
        _check_own(name, data)
        return
    variant = find_variant(name)
    misfit = _misfit(name, data, data.image_size)
    if misfit is None:
        return
    low, high = data.image_size, variant.image_size
    if high <= low or _misfit(name, data, high) is not None:
        what = f"images of {low} pixels do not fit {name}: {misfit.what}"
        raise UserError(what, fix="Give larger images with --image-size, or the network fewer stages.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _misfit(name, data, middle) is None else (middle, high)
    what = f"images of {data.image_size} pixels do not fit {name}: {misfit.what}"
    raise UserError(what, fix=f"It takes {high} or more: --image-size {high}.")


def _misfit(name: str, data: DataSet, size: int) -> UserError | None:
    """Why images of `size` pixels do not fit, found on the meta device; None if they do."""
    found = _passed(name, data.num_classes, data.in_chans, size)
    return found if isinstance(found, UserError) else None


def _check_own(name: str, data: DataSet) -> None:
    """The same for a user's own network, which must give logits: passed without values, or if that cannot be with some."""
    try:
        with torch.device("meta"):
            _check_logits(network_for(name, data, size=data.image_size), name, data)
    except UserError:
        with torch.random.fork_rng(devices=[]):
            _check_logits(network_for(name, data, size=data.image_size), name, data)


def _check_logits(model: Network, name: str, data: DataSet) -> None:
    device = _device(model)
    shape = (data.in_chans, data.image_size, data.image_size)
    for mode in (True, False):
        try:
            with torch.device(device), torch.no_grad():
                logits = model.train(mode)(torch.rand(2, *shape))
        except Exception as error:  # the user's own code may raise anything
            where = "training" if mode else "evaluation"
            what = f"{name} fails in {where} on images of {' x '.join(map(str, shape))}: {first_line(error)}"
            fix = "Let the factory take in_chans and image_size, or give another --image-size."
            raise UserError(what, fix=fix) from error
        if not isinstance(logits, Tensor) or logits.shape != (2, data.num_classes):
            given = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            what = f"{name} gives {given} for two images, and not logits (2, {data.num_classes})"
            raise UserError(what, fix="Let the factory take num_classes, and forward give one logit for each class.")


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
        params=facts.params,
        macs=facts.macs,
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
