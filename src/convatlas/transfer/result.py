"""What a finished fine-tuning leaves beside its weights: one look at the test images, and at where it errs."""

from dataclasses import dataclass, replace
from pathlib import Path

from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.splits import folds_of
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.errors_look import ErrorReport
from convatlas.records.run import RunSummary
from convatlas.records.tournament import PLAN, RESULT, Tournament, TournamentPlan
from convatlas.training.apply import judge_once
from convatlas.training.checkpoint import load_config, load_model, save_config
from convatlas.training.evaluate import Progress
from convatlas.transfer.errors import examine_errors
from convatlas.transfer.tournament import joined
from convatlas.transfer.tuning import FEWEST_FOR_TEMPERATURE

ERRORS = "errors.json"


@dataclass(frozen=True)
class _Judged:
    """Images that the network in `folder` was not trained on, what they are called, and what is to be said of them."""

    folder: Path
    split: str
    images: ImageSet
    names: tuple[str, ...]
    note: str | None = None


def complete(folder: Path, data: DataSet, *, progress: Progress | None = None) -> ErrorReport:
    """Look at the test images, unless that was done, and keep what the network in `folder` errs on. Raises UserError.

    Where there are no test images the validation images are looked at. The winner of a tournament was trained on those too: then
    one of its finals is judged, on the images of its fold. `progress(what, done, total)` counts images.
    """
    judged = _judged(folder, data)
    if judged.split == "test":
        judge_once(folder, data=data, progress=progress)
        tested = codec.read(RunSummary, folder / "summary.json").test_accuracy
        save_config(folder, replace(load_config(folder), test_accuracy=tested))
    model, config = load_model(judged.folder)
    found = examine_errors(
        model,
        judged.images,
        names=judged.names,
        classes=config.classes,
        mean=config.mean,
        std=config.std,
        size=config.image_size,
        temperature=config.temperature,
        split=judged.split,
        fitted_on=_fitted_on(judged.folder),
        progress=progress,
    )
    if judged.note is not None:
        found = replace(found, notes=(judged.note, *found.notes))
    storage.write_text(folder / ERRORS, codec.to_text(found))
    return found


def _fitted_on(folder: Path) -> str:
    """By which images the temperature was found; nothing where there were too few."""
    if (folder.parent / PLAN).exists():
        fitted = load_config(folder).temperature != 1.0  # their folds may have been too small
        return "the folds by which it was chosen" if fitted else ""
    return "val" if codec.read(RunSummary, folder / "summary.json").n_val >= FEWEST_FOR_TEMPERATURE else ""


def _judged(folder: Path, data: DataSet) -> _Judged:
    if len(data.test):
        return _Judged(folder, "test", data.test, _names(data, ("test",), len(data.test)))
    if codec.read(RunSummary, folder / "summary.json").n_val:
        return _Judged(folder, "val", data.val, _names(data, ("val",), len(data.val)))
    if (folder.parent / RESULT).exists():
        return _final(folder.parent, data)
    what = f"{folder} is trained, and there are no images by which to judge it"
    raise UserError(what, fix="Give a test split, or --validation 0.1; `convatlas predict` works without.")


def _final(tournament: Path, data: DataSet) -> _Judged:
    """The winner's first training of the last round, and its fold."""
    plan, result = codec.read(TournamentPlan, tournament / PLAN), codec.read(Tournament, tournament / RESULT)
    own = [t for t in result.trials if t.strategy == result.winner and t.rung == len(result.rungs) and t.cause is None]
    pool = joined(data.train, data.val)
    held = folds_of(pool.labels.tolist(), folds=plan.folds, seed=plan.seed)[own[0].fold]
    names = _names(data, ("train", "val"), len(pool))
    note = (
        "There are no test images, and this network was trained on all others: what is told is of one that was trained in the "
        f"same way on the other images (fold {own[0].fold + 1} of {plan.folds} held out), and by which it was chosen"
    )
    return _Judged(tournament / own[0].folder, "val", pool.subset(held), tuple(names[i] for i in held), note)


def _names(data: DataSet, splits: tuple[str, ...], n: int) -> tuple[str, ...]:
    """What the images of these splits are called: their paths, or their places."""
    named = tuple(name for split in splits for name in (data.split or {}).get(split, ()))
    return named if len(named) == n else tuple(f"{' or '.join(splits)} image {i + 1}" for i in range(n))
