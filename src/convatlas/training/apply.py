"""Using a finished run: judging it on a split, and predicting pictures."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.pictures import read_picture
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.run import Evaluation, ModelConfig, Prediction, Recipe, RunSummary, TestLook
from convatlas.training.checkpoint import load_model
from convatlas.training.evaluate import evaluate, predict_logits

SPLITS = ("train", "val", "test")


def evaluate_run(folder: Path, *, data: DataSet, split: str) -> Evaluation:
    """The finished run's outcome on a split of the data it was made with.

    A look at the test split is counted in `summary.json` and dated in `test_looks.jsonl`; its outcome is `test.json`.
    Raises UserError.
    """
    recipe = codec.read(Recipe, folder / "recipe.json")
    if data.fingerprint != recipe.data_fingerprint:
        raise UserError(f"{folder} was made with other data", fix="Give the original with --data-root.")
    model, _ = load_model(folder)
    outcome = evaluate(model, data, split=split)
    if split == "test":
        _keep_look(folder, outcome)
    return outcome


def _keep_look(folder: Path, outcome: Evaluation) -> None:
    summary = codec.read(RunSummary, folder / "summary.json")
    look = TestLook(datetime.now(UTC).isoformat(timespec="seconds"), outcome.top1, summary.test_looks + 1)
    storage.append_line(folder / "test_looks.jsonl", codec.to_line(look))
    storage.write_text(folder / "test.json", codec.to_text(outcome))
    counted = replace(summary, test_accuracy=outcome.top1, test_looks=look.look)
    storage.write_text(folder / "summary.json", codec.to_text(counted))


def predict_pictures(folder: Path, images: Sequence[Path], *, top: int = 5) -> tuple[Prediction, ...]:
    """The `top` likeliest classes of each picture, in the order given. An unreadable one carries its error instead."""
    model, config = load_model(folder)
    return tuple(_predict(model, config, path, top=min(top, config.num_classes)) for path in images)


def _predict(model: nn.Module, config: ModelConfig, path: Path, *, top: int) -> Prediction:
    try:
        picture = read_picture(path, size=config.image_size, channels=config.in_chans)
    except UserError as error:
        return Prediction(str(path), (), (), error.what)
    alone = ImageSet(picture[None], torch.zeros(1, dtype=torch.int64))
    probabilities = predict_logits(model, alone, mean=config.mean, std=config.std).softmax(1)[0]
    best = probabilities.topk(top)
    return Prediction(str(path), tuple(config.classes[i] for i in best.indices.tolist()), tuple(best.values.tolist()))
