"""From a folder of images, a model and a strategy to the recipe of one fine-tuning run."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import DataSet
from convatlas.data.loading import LARGEST_IMAGE, load_data
from convatlas.data.mixing import check_mixing
from convatlas.data.pictures import printable
from convatlas.data.policies import check_policy
from convatlas.errors import UserError, unknown_name
from convatlas.models.pretrained import HUB
from convatlas.models.published import SOURCES, published
from convatlas.models.registry import create_model, find_variant
from convatlas.records.run import Recipe
from convatlas.records.tuning import Tuning
from convatlas.records.weights import Preprocessing
from convatlas.training.recipe import check_recipe
from convatlas.transfer.known import BALANCES, CACHED_EPOCHS, STRATEGIES, check_optimizer
from convatlas.transfer.tuning import weights_sha256

Progress = Callable[[str, int, int], None]
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None, 224, "bicubic")
"""For weights that do not say how they want their images, and for none: what torchvision's take, at the variant's own size."""


@dataclass(frozen=True)
class Start:
    """What a network begins with: the weights' name (None: random), their SHA-256, and their preprocessing."""

    weights: str | None
    sha256: str | None
    preprocessing: Preprocessing


def start_from(model: str, weights: str | None, *, image_size: int | None = None) -> Start:
    """What `model` begins with: the weights that `weights` names as `create_model(pretrained=)` does ("default": True).

    `image_size` replaces the side that the network sees. Images keep their proportions also for weights that were published with
    squeezed ones. Raises UserError where there are no such weights.
    """
    if weights == "default" and not published(model):
        find_variant(model)
        fix = "Name a file of them with --weights, or give --strategy scratch; `convatlas weights` lists what is published."
        raise UserError(f"no weights are published for {model}", fix=fix)
    if image_size is not None and image_size < 1:
        raise UserError(f"the image size is {image_size} pixels", fix="Choose one of 1 or more.")
    if weights is None:
        how, name, sha256 = _own_size(model, IMAGENET), None, None
    else:
        network = create_model(model, pretrained=True if weights == "default" else weights, num_classes=2, image_size=image_size)
        assert network.loaded is not None
        how = network.loaded.preprocessing or _own_size(model, IMAGENET)
        name = network.loaded.source if weights == "default" else _kept(weights)
        sha256 = weights_sha256(network)
    return Start(name, sha256, _at_size(how, image_size or how.crop))


def _at_size(how: Preprocessing, crop: int) -> Preprocessing:
    """The same with another side that the network sees, and in proportion the one to which images are brought."""
    share = (how.resize or how.crop) / how.crop
    resize = max(crop, round(crop * share))
    if resize > LARGEST_IMAGE:
        what = f"the image size is {crop} pixels, for which images are held at {resize}"
        raise UserError(what, fix=f"Choose one of at most {int(LARGEST_IMAGE / share)}.")
    return replace(how, crop=crop, resize=resize)


def _kept(weights: str) -> str:
    """The name of weights as a recipe keeps it: a file's holds wherever the run is gone on with."""
    named = weights.partition(":")[0] in SOURCES or weights.startswith(HUB)
    return weights if named else str(Path(weights).expanduser().absolute())


def _own_size(model: str, how: Preprocessing) -> Preprocessing:
    """The same at the size the variant was published for; photographs are held an eighth larger, so that there is room to cut."""
    crop = find_variant(model).image_size
    return replace(how, crop=crop, resize=round(crop / 0.875))


def load_for_tuning(
    place: str,
    how: Preprocessing,
    *,
    validation: float = 0.15,
    parted: float | None = None,
    skip_unreadable: bool = False,
    fraction: float = 1.0,
    fewest_classes: int = 2,
    progress: Progress | None = None,
) -> DataSet:
    """The images in the folder or CSV list `place`, or of a data set of the catalogue, as `how` wants them.

    They are held at the size to which the weights resize, of which networks see the middle: those are the pixels that
    `convatlas.preprocess` gives, but for what is gained by decoding large JPEGs at a part of their size. `validation` and
    `parted` are those of `load_data`. Raises UserError.
    """
    named = place in CATALOG and CATALOG[place].kind != "your own"
    if not named:
        check_place(place)
    kind = place if named else ("csv" if place.lower().endswith(".csv") and not Path(place).is_dir() else "folder")
    data = load_data(
        kind,
        root=None if named else Path(place),
        image_size=how.resize or how.crop,
        validation=validation,
        parted=parted,
        skip_unreadable=skip_unreadable,
        fraction=fraction,
        crop=how.crop,
        interpolation=how.interpolation,
        fewest_classes=fewest_classes,
        progress=progress,
    )
    return prepared_for(data, how)


def check_place(place: str) -> None:
    """Refuse what is neither there nor the name of a set, and suggest the nearest name."""
    if not place.strip():
        raise UserError("no images are named", fix="Give a folder with one folder of pictures for each class.")
    if not os.path.lexists(place):
        sets = [name for name, entry in CATALOG.items() if entry.kind != "your own"]
        near = difflib.get_close_matches(place.lower(), sets, n=3, cutoff=0.6)
        guess = f"Did you mean the set {' or '.join(near)}? " if near else ""
        raise UserError(f"{printable(place)} does not exist", fix=f"{guess}Name a folder of pictures, or a CSV list.")


def prepared_for(data: DataSet, how: Preprocessing) -> DataSet:
    """The data with the crop, means and deviations of `how`; grey images take the means of the channels."""
    mean, std = how.mean, how.std
    if data.in_chans == 1 and len(mean) > 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return replace(data, crop=how.crop, mean=mean, std=std)


def recipe_for(
    strategy: str, model: str, start: Start, data: DataSet, *, settings: dict[str, object] | None = None, **tuning: object
) -> Recipe:
    """The recipe of fine-tuning `model` on `data`. `settings` replace those of the recipe, `tuning` those of its tuning.

    With cached features minutes become epochs: the features come first, however long they take, and what is left of the minutes
    may be nothing, while some epochs cost next to nothing. Raises UserError for what cannot be.
    """
    if strategy not in STRATEGIES:
        raise unknown_name("strategy", strategy, STRATEGIES, where=f"Choose from auto, {', '.join(STRATEGIES)}.")
    known, made = STRATEGIES[strategy], _tuning(strategy, start, tuning)
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    recipe = Recipe(
        model=model,
        data=data.name,
        data_fingerprint=data.fingerprint,
        image_size=data.image_size,
        tuning=made,
        **({"lr": known.lr, "classifier_lr": known.classifier_lr} | DEFAULTS | given),  # type: ignore[arg-type]
    )
    check_recipe(recipe)
    check_optimizer(recipe.optimizer, rated="lr" in given)
    check_tuning(made, data)
    if made.cached and recipe.minutes is not None:
        recipe = replace(recipe, epochs=CACHED_EPOCHS, minutes=None)
    return replace(recipe, batch_size=_batch_size(recipe.batch_size, len(data.train)))


def _tuning(strategy: str, start: Start, settings: dict[str, object]) -> Tuning:
    """What the strategy begins with, and `settings` of its own; None among them leaves the default."""
    pretrained = STRATEGIES[strategy].pretrained
    if pretrained and start.weights is None:
        raise UserError(f"{strategy} needs pretrained weights", fix="Name them with --weights, or give --strategy scratch.")
    return Tuning(
        strategy=strategy,
        weights=start.weights if pretrained else None,
        weights_sha256=start.sha256 if pretrained else None,
        preprocessing=start.preprocessing,
        **{name: value for name, value in settings.items() if value is not None},  # type: ignore[arg-type]
    )


def _batch_size(wanted: int, images: int) -> int:
    """The default becomes smaller with the data; any other that is larger is refused."""
    if wanted > images and wanted != BATCH_SIZE:
        raise UserError(f"the batch size is {wanted}, and there are {images} training images", fix="Give a smaller --batch-size.")
    return max(2, min(wanted, images))


BATCH_SIZE = 32
DEFAULTS: dict[str, object] = {
    "batch_size": BATCH_SIZE,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup": 0.1,
    "label_smoothing": 0.1,
    "clip_grad": 1.0,
    "convolutions": "stock",
    "compile": "off",
    "crop": 0,
}
"""What fine-tuning begins with where nothing else is said. Images are cut by the policy, not shifted."""

RANGES: dict[str, tuple[float, float, str]] = {
    "mixup": (0, 100, "a number of 0 or more (0: no MixUp)"),
    "cutmix": (0, 100, "a number of 0 or more (0: no CutMix)"),
    "focal": (0, 10, "an exponent from 0 (cross-entropy) to 10"),
    "stages": (1, 100, "a whole number of stages of 1 or more"),
    "layer_decay": (0.01, 1, "a factor above 0, at most 1"),
    "l2_sp": (0, 100, "a number of 0 or more"),
    "probe_share": (0.01, 0.99, "a share of the budget between 0 and 1"),
    "copies": (1, 1000, "a whole number of 1 or more"),
}


def check_tuning(tuning: Tuning, data: DataSet) -> None:
    """Raise a UserError for the first setting that cannot be, or that would do nothing."""
    for setting, (low, high, wanted) in RANGES.items():
        value = getattr(tuning, setting)
        if not low <= value <= high:
            limit = f", at most {high:g}" if value > high and "at most" not in wanted else ""
            raise UserError(f"{setting} is {value}", fix=f"Give {wanted}{limit}.")
    check_policy(tuning.policy)
    check_mixing(tuning.mixup, tuning.cutmix)
    if tuning.balance not in BALANCES:
        raise unknown_name("balance", tuning.balance, BALANCES, where=f"Known: {', '.join(BALANCES)}.")
    if tuning.cached and tuning.strategy != "probe":
        raise UserError(f"features cannot be cached for {tuning.strategy}, which changes them", fix="Give --strategy probe.")
    if tuning.cached and (tuning.mixup or tuning.cutmix):
        raise UserError("cached features cannot be mixed as images are", fix="Leave --mixup and --cutmix out.")
    if tuning.cached and tuning.policy == "none" and tuning.copies > 1:
        raise UserError("without augmentation all copies are the same", fix="Give --augment light, or --copies 1.")
    if len(set(data.train.labels.tolist())) < 2:
        raise UserError("the training images are of one class only", fix="A classifier needs images of two classes or more.")
    if not len(data.val) and not len(data.test):
        what = f"there are {len(data.train)} images, one of each class, so that none is left to judge by"
        raise UserError(what, fix="Add images: two or more of a class, ten or more for figures that mean something.")
