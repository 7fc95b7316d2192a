"""Whether a folder holds a finished run, and what to do where it does not. No torch here, so that it is told at once."""

import os
from pathlib import Path

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import ModelConfig, Recipe
from convatlas.records.tournament import PLAN, RESULT, TRIALS, WINNER


def result_in(folder: Path) -> Path:
    """The folder that holds the finished network: of a finished tournament its winner's, otherwise `folder` itself."""
    won = not (folder / "config.json").exists() and (folder / WINNER / "config.json").exists()
    return folder / WINNER if won else folder


def config_of(folder: Path) -> ModelConfig:
    """What `config.json` says. Raises UserError where the folder has none."""
    if not (folder / "config.json").exists():
        raise not_finished(folder)
    return codec.read(ModelConfig, folder / "config.json")


def not_finished(folder: Path) -> UserError:
    """What the folder holds instead of a finished run, and what to do about it."""
    if not folder.is_dir():
        return UserError(f"{folder} does not exist, or is no folder", fix="Check the path.")
    if (folder / PLAN).exists() and (folder / TRIALS).is_dir():  # a comparison has a plan of that name too
        return UserError(f"{folder} is a tournament under way", fix=f"Go on with `convatlas finetune --resume {folder}`.")
    part = part_of_tournament(folder)
    if part is not None:
        return part
    if (folder / "recipe.json").exists():
        command = "train" if codec.read(Recipe, folder / "recipe.json").tuning is None else "finetune"
        return UserError(f"{folder} holds no finished model", fix=f"Finish it with `convatlas {command} --resume {folder}`.")
    return UserError(f"{folder} holds no finished model", fix="Name the folder of a run.")


def part_of_tournament(folder: Path) -> UserError | None:
    """Why the run of a trial, or of a winner, is not gone on with by itself, and what to do instead; None for any other folder.

    Its training and validation images are the tournament's choice, and not those that its recipe alone would give.
    """
    place = folder.resolve()  # the folder may be given as "." or "../winner"
    whole = place.parent if place.name == WINNER else place.parent.parent if place.parent.name == TRIALS else None
    if whole is None or not (whole / PLAN).exists() or not (whole / TRIALS).is_dir():
        return None
    shown = whole if folder.is_absolute() else Path(os.path.relpath(whole))
    if tournament_over(whole):
        return UserError(f"{folder} is a part of the finished tournament {shown}", fix=f"Its result is {shown / WINNER}.")
    fix = f"Go on with `convatlas finetune --resume {shown}`."
    return UserError(f"{folder} is a part of the tournament {shown}, which is under way", fix=fix)


def tournament_over(folder: Path) -> bool:
    """Whether nothing of the tournament in the folder is still to be done or written."""
    return all((folder / name).exists() for name in (RESULT, "report.html", f"{WINNER}/README.md"))
