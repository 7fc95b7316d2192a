"""What a finished fine-tuning leaves beside its weights: one look at the test images, and at where it errs."""

from pathlib import Path

from convatlas.data.dataset import DataSet
from convatlas.records import codec, storage
from convatlas.records.errors_look import ErrorReport
from convatlas.training.apply import judge_once
from convatlas.training.checkpoint import load_model
from convatlas.transfer.errors import examine_errors

ERRORS = "errors.json"


def complete(folder: Path, data: DataSet) -> ErrorReport:
    """Look at the test images, unless that was done, and keep what the network in `folder` errs on. Raises UserError.

    Where there are no test images the validation images are looked at.
    """
    split = "test" if len(data.test) else "val"
    if split == "test":
        judge_once(folder, data=data)
    model, config = load_model(folder)
    images = data.test if split == "test" else data.val
    found = examine_errors(
        model,
        images,
        names=_names(data, split, len(images)),
        classes=config.classes,
        mean=config.mean,
        std=config.std,
        size=config.image_size,
        temperature=config.temperature,
        split=split,
    )
    storage.write_text(folder / ERRORS, codec.to_text(found))
    return found


def _names(data: DataSet, split: str, n: int) -> tuple[str, ...]:
    """What the images are called: their paths, or their places."""
    named = (data.split or {}).get(split, ())
    return named if len(named) == n else tuple(f"{split} image {i + 1}" for i in range(n))
