"""A result folder on other images than those that it was made with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.pictures import printable
from convatlas.data.readers.picture_files import PARTED
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Evaluation, ModelConfig, Recipe, RunSummary
from convatlas.training.apply import look_counted
from convatlas.training.checkpoint import load_model
from convatlas.training.evaluate import judge
from convatlas.transfer.plan import Progress, load_for_tuning

EVERYTHING = "all"
"""What an evaluation's split is called if the data have none: then every image counts."""


def evaluate_on(
    folder: Path, place: str, *, progress: Progress | None = None, note: Callable[[str], None] | None = None
) -> Evaluation:
    """How the network in `folder` does on the images in `place`: their test split, or all of them where there are no splits.

    Every class of theirs must be one of the network's; they may be of one class alone. `note` is told of images that
    are left aside, and of ones that the network was made with. Raises UserError.
    """
    model, config = load_model(folder)
    data = load_for_tuning(place, config.preprocessing, validation=0.0, fewest_classes=1, progress=progress)
    if data.in_chans != config.in_chans:
        what = f"the images have {data.in_chans} channels, and the network takes {config.in_chans}"
        raise UserError(what, fix="Give images like those that it was trained on.")
    split, images = _judged(data)
    if note is not None:
        _note(folder, data, split, note)
    images = ImageSet(images.images, _renamed(data, config)[images.labels])
    whole = replace(data, classes=config.classes, test=images)
    outcome, _ = judge(model, whole, split="test", temperature=config.temperature, progress=progress)
    if split == "test" and _made_with(folder, data):
        looks = look_counted(folder, outcome.top1)
        if note is not None:
            note(f"these are the test images of the data that the network was made with; looks at them so far: {looks}")
    return replace(outcome, split=split)


def _made_with(folder: Path, data: DataSet) -> bool:
    """Whether the run in the folder is of these data; a folder of weights that came without its run does not say."""
    recipe = folder / "recipe.json"
    there = recipe.exists() and (folder / "summary.json").exists()
    return there and codec.read(Recipe, recipe).data_fingerprint == data.fingerprint


def _judged(data: DataSet) -> tuple[str, ImageSet]:
    """The test split of data that are parted, in folders, a list, or as published; else all images."""
    if PARTED not in data.description:
        return "test", data.test
    parts = (data.train, data.val, data.test)
    return EVERYTHING, ImageSet(torch.cat([each.images for each in parts]), torch.cat([each.labels for each in parts]))


def _note(folder: Path, data: DataSet, split: str, note: Callable[[str], None]) -> None:
    """What a person should know of the images before believing the figures."""
    others = len(data.train) + len(data.val)
    if split == "test" and others:
        note(f"judged are the {len(data.test):,} test images; the {others:,} of training and validation are left aside")
    if split == EVERYTHING and _made_with(folder, data):
        trained = codec.read(RunSummary, folder / "summary.json").n_train
        note(f"note: the network was made with these images, and trained on {trained:,} of them: that flatters the figures")


def _renamed(data: DataSet, config: ModelConfig) -> Tensor:
    """The network's label for each of the data's, (classes of the data,)."""
    unknown = [name for name in data.classes if name not in config.classes]
    if unknown:
        names = ", ".join(printable(name) for name in unknown[:3])
        known = ", ".join(printable(name) for name in config.classes[:5])
        raise UserError(f"the network does not know the class {names}", fix=f"It knows {known}. Give images of those.")
    return torch.tensor([config.classes.index(name) for name in data.classes])
