"""A result folder in Python: `convatlas.load(folder)`, which predicts what `convatlas predict` does."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torch import nn

from convatlas.errors import UserError
from convatlas.records.run import ModelConfig, Prediction
from convatlas.training.apply import predict_pictures
from convatlas.training.checkpoint import load_model


class Loaded:
    """A trained network with its configuration: `model` (in evaluation mode, on the CPU), `config`, `classes`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: nn.Module
        self.config: ModelConfig
        self.model, self.config = load_model(folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.config.classes

    def predict(self, images: Sequence[str | PathLike[str]], *, top: int = 5) -> tuple[Prediction, ...]:
        """The `top` likeliest classes of each picture with their probabilities; an unreadable one carries its error instead."""
        if isinstance(images, (str, PathLike)):
            raise UserError(f"images is {str(images)!r}", fix="Give a list of paths.")
        return predict_pictures(self.folder, [Path(each) for each in images], top=top)


def load(folder: str | PathLike[str]) -> Loaded:
    """The network in a result folder, of `convatlas finetune` or `convatlas train`.

    Raises UserError for a folder that holds none, whose checksums are not those in its manifest, or whose configuration does not
    fit its weights.
    """
    return Loaded(Path(folder))
