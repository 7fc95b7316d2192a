"""Whether a folder holds a finished run, and what to do where it does not. No torch here, so that it is told at once."""

from pathlib import Path

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import ModelConfig, Recipe
from convatlas.records.tournament import PLAN, WINNER


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
    if (folder / PLAN).exists():
        return UserError(f"{folder} is a tournament under way", fix=f"Go on with `convatlas finetune --resume {folder}`.")
    if (folder / "recipe.json").exists():
        command = "train" if codec.read(Recipe, folder / "recipe.json").tuning is None else "finetune"
        return UserError(f"{folder} holds no finished model", fix=f"Finish it with `convatlas {command} --resume {folder}`.")
    return UserError(f"{folder} holds no finished model", fix="Name the folder of a run.")
