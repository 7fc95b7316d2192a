"""From a folder of images, a model and a strategy to the recipe of one fine-tuning run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import DataSet
from convatlas.data.loading import load_data
from convatlas.errors import UserError, unknown_name
from convatlas.models.registry import create_model, find_variant
from convatlas.records.run import Recipe
from convatlas.records.tuning import Tuning
from convatlas.records.weights import Preprocessing
from convatlas.training.recipe import check_recipe
from convatlas.transfer.known import BALANCES, STRATEGIES
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

    `image_size` replaces the side that the network sees. Raises UserError where there are no such weights.
    """
    if weights is None:
        how, name, sha256 = _own_size(model, IMAGENET), None, None
    else:
        network = create_model(model, pretrained=True if weights == "default" else weights)
        assert network.loaded is not None
        how = network.loaded.preprocessing or _own_size(model, IMAGENET)
        name = network.loaded.source if weights == "default" else weights
        sha256 = weights_sha256(create_model(model, pretrained=name, num_classes=2))
    if image_size is not None:
        resize = None if how.resize is None else max(image_size, round(image_size * how.resize / how.crop))
        how = replace(how, crop=image_size, resize=resize)
    return Start(name, sha256, how)


def _own_size(model: str, how: Preprocessing) -> Preprocessing:
    """The same at the size the variant was published for; photographs are held an eighth larger, so that there is room to cut."""
    crop = find_variant(model).image_size
    return replace(how, crop=crop, resize=round(crop / 0.875))


def load_for_tuning(
    place: str,
    how: Preprocessing,
    *,
    validation: float = 0.15,
    skip_unreadable: bool = False,
    fraction: float = 1.0,
    progress: Progress | None = None,
) -> DataSet:
    """The images in the folder or CSV list `place`, or of a data set of the catalogue, as `how` wants them.

    They are held at the size to which the weights resize, of which networks see the middle. Raises UserError.
    """
    named = place in CATALOG and CATALOG[place].kind != "your own"
    kind = place if named else ("csv" if place.lower().endswith(".csv") else "folder")
    data = load_data(
        kind,
        root=None if named else Path(place),
        image_size=how.resize or how.crop,
        validation=validation,
        skip_unreadable=skip_unreadable,
        fraction=fraction,
        progress=progress,
    )
    return prepared_for(data, how)


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

    Raises UserError for what cannot be.
    """
    if strategy not in STRATEGIES:
        raise unknown_name("strategy", strategy, STRATEGIES, where=f"Choose from auto, {', '.join(STRATEGIES)}.")
    known = STRATEGIES[strategy]
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    wanted = {name: value for name, value in tuning.items() if value is not None}
    weights = start.weights if known.pretrained else None
    if known.pretrained and weights is None:
        raise UserError(f"{strategy} needs pretrained weights", fix="Leave --no-pretrained out, or give --strategy scratch.")
    made = Tuning(
        strategy=strategy,
        weights=weights,
        weights_sha256=start.sha256 if known.pretrained else None,
        preprocessing=start.preprocessing,
        **wanted,  # type: ignore[arg-type]
    )
    recipe = Recipe(
        model=model,
        data=data.name,
        data_fingerprint=data.fingerprint,
        image_size=data.image_size,
        tuning=made,
        **({"lr": known.lr, "classifier_lr": known.classifier_lr} | DEFAULTS | given),  # type: ignore[arg-type]
    )
    recipe = replace(recipe, batch_size=max(2, min(recipe.batch_size, len(data.train))))
    check_recipe(recipe)
    check_tuning(made, data)
    return recipe


DEFAULTS: dict[str, object] = {
    "batch_size": 32,
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
            raise UserError(f"{setting} is {value}", fix=f"Give {wanted}.")
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
