"""Checking a recipe before anything is computed or written."""

import math
from dataclasses import replace

from convatlas.arith.schedules import SCHEDULES
from convatlas.data.dataset import DataSet
from convatlas.data.mixing import LARGEST_ALPHA
from convatlas.data.policy_names import OPERATIONS_DRAWN
from convatlas.data.readers.picture_files import NO_SPLITS
from convatlas.errors import UserError, unknown_name
from convatlas.records.run import Recipe
from convatlas.training.optim import OPTIMIZERS
from convatlas.training.precision import DEVICES, MEMORY_FORMATS, PRECISIONS
from convatlas.training.views import TEST_AVERAGES

LARGEST_SEED = 2**63 - 1

NAMES = {
    "optimizer": tuple(OPTIMIZERS),
    "schedule": tuple(SCHEDULES),
    "precision": PRECISIONS,
    "memory_format": MEMORY_FORMATS,
    "device": DEVICES,
    "flip_rule": ("random", "alternating"),
    "crop_fill": ("zeros", "reflect"),
    "augment": OPERATIONS_DRAWN,
    "test_average": tuple(TEST_AVERAGES),
    "compile": ("auto", "on", "off", "graphs"),
    "convolutions": ("auto", "stock", "trial"),
}
"""Which words each worded setting may be."""

ALPHA = f"an alpha above 0, at most {LARGEST_ALPHA:g}, or 0 to do without"

RANGES: dict[str, tuple[float, float, str]] = {
    "epochs": (1, 100_000, "a whole number of 1 or more"),
    "minutes": (0.001, 100_000, "a number above 0"),
    "seed": (0, LARGEST_SEED, f"a whole number from 0 to {LARGEST_SEED}"),
    "batch_size": (2, 1_000_000, "a whole number of 2 or more (BatchNorm needs two images)"),
    "lr": (1e-12, 1e6, "a number above 0"),
    "momentum": (0, 0.9999, "a number from 0 up to, but not including, 1"),
    "weight_decay": (0, 1e6, "a number of 0 or more"),
    "warmup": (0, 0.99, "a share from 0 up to, but not including, 1"),
    "label_smoothing": (0, 0.99, "a number from 0 up to, but not including, 1"),
    "ema": (0, 0.999999, "a number from 0 up to, but not including, 1"),
    "clip_grad": (0, 1e12, "a number of 0 or more (0: no clipping)"),
    "crop": (0, 64, "a whole number of pixels from 0 to 64"),
    "cutout": (0, 1024, "a whole number of pixels of 0 or more"),
    "mixup": (0, LARGEST_ALPHA, ALPHA),
    "cutmix": (0, LARGEST_ALPHA, ALPHA),
    "validation": (0, 0.9, "a share of the training images from 0 (nothing to choose by) to 0.9"),
    "bias_lr": (0, 1e6, "a number of 0 or more"),
    "classifier_lr": (0, 1e6, "a number of 0 or more"),
    "data_fraction": (1e-6, 1, "a share of the training images above 0"),
    "image_size": (1, 4096, "a whole number of pixels from 1 to 4096"),
    "patience": (0, 100_000, "a whole number of epochs (0: the run never ends early)"),
}
"""The least and the largest value of each numeric setting, and how to say so."""


def check_recipe(recipe: Recipe) -> None:
    """Raise a UserError for the first setting that cannot be: out of range, not finite, unknown, or in contradiction."""
    for setting, known in NAMES.items():
        word = getattr(recipe, setting)
        if word not in known:
            raise unknown_name(setting.replace("_", " "), word, known, where=f"Known: {', '.join(known)}.")
    for setting in RANGES:
        value = getattr(recipe, setting)
        if value is not None and (wanted := wanted_of(setting, value)):
            raise UserError(f"{setting} is {value}", fix=f"Give {wanted}.")
    if (recipe.epochs is None) == (recipe.minutes is None):
        raise UserError("the budget is not clear", fix="Give either --epochs or --minutes, not both.")
    _check_sizes(recipe)


def tied(recipe: Recipe, data: DataSet) -> Recipe:
    """The recipe tied to this data's content; how pictures without splits were parted is said of those alone."""
    return replace(recipe, data_fingerprint=data.fingerprint, parted=recipe.parted if NO_SPLITS in data.description else None)


def wanted_of(setting: str, value: float) -> str:
    """What the numeric `setting` is to be instead of `value`; nothing if it may be that."""
    low, high, wanted = RANGES[setting]
    if math.isfinite(value) and low <= value <= high:
        return ""
    told = any(text in wanted for text in (f"{high:g}", str(high)))
    return wanted if told or not value > high else f"{wanted}, at most {high:g}"


def _check_sizes(recipe: Recipe) -> None:
    if not recipe.sizes:
        return
    if recipe.epochs is None:
        raise UserError("sizes change with the epochs, and the budget is in minutes", fix="Give --epochs.")
    shares = [pair[0] for pair in recipe.sizes if len(pair) == 2 and pair[1] == int(pair[1]) and pair[1] >= 1]
    if len(shares) != len(recipe.sizes) or shares != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] <= 1:
        fix = "Give pairs of a share of the epochs, rising up to 1, and whole pixels."
        raise UserError(f"sizes are {recipe.sizes}", fix=fix)
