"""Using a finished run: judging it on a split, and predicting pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from convatlas.data.batches import evaluation_batches
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.pictures import read_picture
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.run import Evaluation, ModelConfig, Prediction, Recipe, RunSummary, TestLook, read_test_looks
from convatlas.training.checkpoint import load_model
from convatlas.training.evaluate import Progress, at_once, judge, predict_logits
from convatlas.training.inference import Engine, Prepared, prepare
from convatlas.training.inference_ways import AUTO, ways_of

SPLITS = ("train", "val", "test")


def evaluate_run(
    folder: Path, *, data: DataSet, split: str, engine: Engine | None = None, progress: Progress | None = None
) -> Evaluation:
    """The finished run's outcome on a split of the data it was made with, its answers averaged as its recipe says.

    A GPU judges unless the recipe keeps the run off it, or `engine` names a way of the processor's. Elsewhere `engine` says how
    to run the network (None: as it is); figures are kept and compared, so that only ways in fp32 are admitted.
    A look at the test split is dated in `test_looks.jsonl` before anything of it can be seen, and counted in `summary.json`; its
    outcome is `test.json`, the answer for each image in `answers.json`. `progress(what, done, total)` counts images.
    Raises UserError.
    """
    recipe = codec.read(Recipe, folder / "recipe.json")
    if data.fingerprint != recipe.data_fingerprint:
        raise UserError(f"{folder} was made with other data", fix="Give the original with --data-root.")
    images = _images_of(split, folder, data)
    model, config = load_model(folder)
    if torch.cuda.is_available() and recipe.device != "cpu" and (engine is None or engine.name == AUTO):
        model = model.to("cuda")
    elif engine is not None:
        first = images.subset(torch.arange(at_once(len(images), config.image_size)))
        model = _ready(model, first, config, engine=engine, ahead=len(images), exact=True)
    judged = partial(judge, average=recipe.test_average, temperature=config.temperature, progress=progress)
    if split != "test":
        return judged(model, data, split=split)[0]
    with storage.held(folder):
        outcome, answers = judged(model, data, split=split)
        _date_look(folder, outcome.top1)
        storage.write_text(folder / "answers.json", codec.to_line(answers))
        storage.write_text(folder / "test.json", codec.to_text(outcome))
        _count_looks(folder, outcome.top1)
    return outcome


def _images_of(split: str, folder: Path, data: DataSet) -> ImageSet:
    """The split's images. Raises UserError where there are none, or where the run has parted the images otherwise."""
    images: ImageSet = {"train": data.train, "val": data.val, "test": data.test}[split]
    if not len(images):
        raise UserError(f"the {split} split has no images", fix=f"Choose another of {', '.join(SPLITS)}.")
    summary = codec.read(RunSummary, folder / "summary.json")
    if split == "val" and not summary.n_val:
        raise UserError(f"{folder} was trained on all images but the test images", fix="Give --split test.")
    if split != "test" and (summary.n_train, summary.n_val) != (len(data.train), len(data.val)):
        what = f"{folder} has parted the images otherwise: {summary.n_train:,} to train on, {summary.n_val:,} for validation"
        raise UserError(what, fix="Give --split test.")
    return images


def judge_once(folder: Path, *, data: DataSet, progress: Progress | None = None) -> None:
    """Look at the test split unless that has been done; a look of which a crash kept the outcome only is counted now."""
    looks = codec.read(RunSummary, folder / "summary.json").test_looks
    if looks > 0 and (folder / "answers.json").exists():
        return
    if (folder / "answers.json").exists() and (folder / "test.json").exists():
        seen = codec.read(Evaluation, folder / "test.json").top1
        if _last_look(folder) <= looks:  # versions before dated it last
            _date_look(folder, seen)
        _count_looks(folder, seen)
    else:
        evaluate_run(folder, data=data, split="test", progress=progress)


def look_counted(folder: Path, top1: float) -> int:
    """Date and count one more look at the test split of the run in `folder`; how many there are now."""
    with storage.held(folder):
        _date_look(folder, top1)
        return _count_looks(folder, codec.read(RunSummary, folder / "summary.json").test_accuracy)


def _last_look(folder: Path) -> int:
    """Which look the last one was that is dated, or at least counted."""
    dated = read_test_looks(folder / "test_looks.jsonl")
    return max(codec.read(RunSummary, folder / "summary.json").test_looks, *(each.look for each in dated), 0)


def _date_look(folder: Path, top1: float) -> None:
    look = TestLook(datetime.now(UTC).isoformat(timespec="seconds"), top1, _last_look(folder) + 1)
    storage.append_line(folder / "test_looks.jsonl", codec.to_line(look))


def _count_looks(folder: Path, test_accuracy: float | None) -> int:
    """Take over into the summary how many looks are dated."""
    summary = codec.read(RunSummary, folder / "summary.json")
    counted = replace(summary, test_accuracy=test_accuracy, test_looks=_last_look(folder))
    storage.write_text(folder / "summary.json", codec.to_text(counted))
    return counted.test_looks


def _ready(model: nn.Module, first: ImageSet, config: ModelConfig, *, engine: Engine, ahead: int, exact: bool) -> Prepared:
    """The network made ready by the engine for `ahead` images like the first ones; who wants to know what was chosen is told."""
    ways = ways_of(engine.name, exact=exact)
    batches = evaluation_batches(
        first,
        batch_size=len(first),
        mean=config.mean,
        std=config.std,
        dtype=torch.float32,
        memory_format=torch.channels_last,
        device="cpu",
        size=config.image_size,
    )
    example, _ = next(batches)
    prepared = prepare(model, example, ways=ways, images_ahead=ahead, progress=engine.trying)
    engine.chosen(prepared.record)
    return prepared


def predict_pictures(
    folder: Path, images: Sequence[Path], *, top: int = 5, engine: Engine | None = None
) -> tuple[Prediction, ...]:
    """The `top` likeliest classes of each picture, in the order given. An unreadable one carries its error instead.

    `engine` says how to run the network (None: as it is). Raises UserError.
    """
    model, config = load_model(folder)
    predictions: list[Prediction] = []
    ready = engine is None
    step = at_once(max(1, len(images)), config.image_size)
    for begin in range(0, len(images), step):
        read = [_read(path, config) for path in images[begin : begin + step]]
        pictures = [each for each in read if isinstance(each, Tensor)]
        together = ImageSet(torch.stack(pictures), torch.zeros(len(pictures), dtype=torch.int64)) if pictures else None
        if engine is not None and together is not None and not ready:
            model = _ready(model, together, config, engine=engine, ahead=len(images) - begin, exact=False)
            ready = True
        rows = iter(() if together is None else probabilities(model, together, config))
        for path, each in zip(images[begin : begin + step], read, strict=True):
            predictions.append(told(str(path), each, rows, config, top=top))
    return tuple(predictions)


def probabilities(model: nn.Module | Prepared, images: ImageSet, config: ModelConfig) -> Tensor:
    """Of each class for each image, (N, num_classes)."""
    logits = predict_logits(model, images, mean=config.mean, std=config.std, size=config.image_size)
    return (logits / config.temperature).softmax(1)


def _read(path: Path, config: ModelConfig) -> Tensor | str:
    """The picture, or what is wrong with it."""
    try:
        return read_picture(
            path,
            size=config.resize or config.image_size,
            channels=config.in_chans,
            crop=config.image_size,
            interpolation=config.interpolation,
        )
    except UserError as error:
        return error.what


def told(name: str, read: Tensor | str, rows: Iterator[Tensor], config: ModelConfig, *, top: int) -> Prediction:
    """What is said of a picture called `name`; one that was read takes the next of `rows`, probabilities (num_classes,)."""
    if isinstance(read, str):
        return Prediction(name, (), (), read)
    best = next(rows).topk(min(top, config.num_classes))
    return Prediction(name, tuple(config.classes[i] for i in best.indices.tolist()), tuple(best.values.tolist()))
