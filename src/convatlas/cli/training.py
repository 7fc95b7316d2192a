"""`convatlas train`, `eval` and `predict`: one run, made and used.

`train` is long because each option is a line, twice.
"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from convatlas.cli import options as o
from convatlas.cli.console import clock, count, counted, say, tell, tell_json
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import Evaluation, ModelConfig, Prediction, Recipe, RunSummary

SHOWN_CLASSES = 20


def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A model of `convatlas list --all`, such as resnet.pocket.")] = None,
    data: o.Data = "shapes",
    data_root: o.DataRoot = None,
    epochs: o.Epochs = None,
    minutes: o.Minutes = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Decides initial weights, order and augmentation.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder for the run (default: below runs/).")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the unfinished run in this folder.")] = None,
    batch_size: o.BatchSize = 128,
    lr: o.LearningRate = None,
    optimizer: o.Optimizer = "adamw",
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = "one-cycle",
    warmup: o.Warmup = 0.2,
    label_smoothing: o.LabelSmoothing = 0.1,
    ema: o.Ema = 0.0,
    clip_grad: o.ClipGrad = 1.0,
    flip: o.Flip = None,
    crop: o.Crop = None,
    cutout: o.Cutout = 0,
    validation: o.Validation = 0.1,
    image_size: o.ImageSize = None,
    precision: o.Precision = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    gradients: Annotated[bool, typer.Option("--gradients", help="Keep each layer's gradients, once an epoch.")] = False,
    no_verify: o.NoVerify = False,
    skip_unreadable: o.SkipUnreadable = False,
    as_json: o.Json = False,
) -> None:
    """Train one model: one recipe in, one run folder out."""
    if resume is not None:
        o.nothing_beside_resume(context)
        _resume(resume, data_root, threads=threads, as_json=as_json)
        return
    if model is None:
        raise UserError(
            "no model is named", fix="Name one, such as `convatlas train resnet.pocket`; `convatlas list --all` has all."
        )
    o.check_new(out)
    chosen = o.DataOptions(data, data_root, image_size, validation, not no_verify, skip_unreadable)
    recipe = o.make_recipe(
        model,
        chosen,
        epochs=epochs if epochs is not None or minutes is not None else 10,
        minutes=minutes,
        seed=seed,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        label_smoothing=label_smoothing,
        ema=ema,
        clip_grad=clip_grad,
        flip=flip,
        crop=crop,
        cutout=cutout,
        precision=precision,
        device=device,
        gradients=gradients,
    )
    _train(recipe, chosen, out or o.fresh_folder(model), threads=threads, as_json=as_json)


def _train(recipe: Recipe, chosen: o.DataOptions, out: Path, *, threads: int | None, as_json: bool) -> None:
    from convatlas.cli.working import load, say_what_it_is, tied_to, use_threads, watching
    from convatlas.models.registry import find_variant
    from convatlas.training.loop import train as train_run
    from convatlas.training.precision import choose
    from convatlas.training.prepare import examine
    from convatlas.training.recipe import check_recipe

    find_variant(recipe.model)
    check_recipe(recipe)
    use_threads(threads)
    data = load(chosen)
    recipe = tied_to(recipe, data)
    network, _ = examine(recipe, data)
    choose(recipe, network)
    say_what_it_is(data)
    with watching(1, out, f"convatlas train --resume {shlex.quote(str(out))}") as watch:
        summary = train_run(recipe, out, data=data, watch=watch)
    _tell_run(summary, out, as_json=as_json)


def _resume(folder: Path, root: Path | None, *, threads: int | None, as_json: bool) -> None:
    from convatlas.cli.working import load_for, use_threads, watching
    from convatlas.training.loop import resume

    use_threads(threads)
    data = load_for(codec.read(Recipe, folder / "recipe.json"), root)
    with watching(1, folder, f"convatlas train --resume {shlex.quote(str(folder))}") as watch:
        summary = resume(folder, data=data, watch=watch)
    _tell_run(summary, folder, as_json=as_json)


def _tell_run(summary: RunSummary, folder: Path, *, as_json: bool) -> None:
    if as_json:
        tell_json({"folder": str(folder), **codec.to_plain(summary)})
        return
    val = "-" if summary.val_accuracy is None else f"{summary.val_accuracy:.2%}"
    tell(
        f"{summary.model}: {val} on {counted(summary.n_val, 'validation image')} after {counted(summary.epochs_done, 'epoch')}, "
        f"{clock(summary.train_seconds)} of training at {summary.images_per_second:,.0f} images/s "
        f"({count(summary.params)} parameters, {count(summary.macs)} MACs at {summary.image_size} pixels, seed {summary.seed})"
    )
    for name in summary.skipped_images:
        say(f"left out, unreadable: {name}")
    tell(f"run folder: {folder}")
    tell(f"next: convatlas eval {shlex.quote(str(folder))} --split test")


def evaluate(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str, typer.Option("--split", help="train, val or test. Each look at test is counted.")] = "val",
    data_root: o.DataRoot = None,
    threads: o.Threads = None,
    as_json: o.Json = False,
) -> None:
    """Judge a finished run on a split of its data."""
    if split not in ("train", "val", "test"):
        raise UserError(f"there is no split called {split!r}", fix="Choose train, val or test.")
    recipe = codec.read(Recipe, folder / "recipe.json")
    from convatlas.cli.working import load_for, use_threads
    from convatlas.training.apply import evaluate_run

    use_threads(threads)
    data = load_for(recipe, data_root)
    outcome = evaluate_run(folder, data=data, split=split)
    if as_json:
        tell_json(outcome)
        return
    _tell_evaluation(outcome, recipe.model)
    if split == "test":
        looks = codec.read(RunSummary, folder / "summary.json").test_looks
        say(f"looks at the test split so far: {looks}")


def _tell_evaluation(outcome: Evaluation, model: str) -> None:
    five = "" if outcome.top5 is None else f", top-5 {outcome.top5:.2%}"
    tell(f"{model} on {outcome.n:,} {outcome.split} images: top-1 {outcome.top1:.2%}{five}, loss {outcome.loss:.4f}")
    if len(outcome.classes) > SHOWN_CLASSES:
        return
    for i, (name, row) in enumerate(zip(outcome.classes, outcome.confusion, strict=True)):
        if sum(row):
            tell(f"  {name:<16} {row[i] / sum(row):7.2%}  of {sum(row):,}")


def predict(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    top: Annotated[int, typer.Option("--top", help="How many classes to name.", min=1)] = 5,
    as_json: o.Json = False,
) -> None:
    """Say what a finished run sees in pictures."""
    codec.read(ModelConfig, folder / "config.json")
    from convatlas.training.apply import predict_pictures

    predictions = predict_pictures(folder, images, top=top)
    if as_json:
        tell_json(predictions)
    else:
        for prediction in predictions:
            _tell_prediction(prediction)
    unread = [p for p in predictions if p.error is not None]
    if unread:
        what = f"{len(unread)} of {len(predictions)} pictures could not be read: {unread[0].error}"
        raise UserError(what, fix="Check the path and the file.")


def _tell_prediction(prediction: Prediction) -> None:
    if prediction.error is None:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        tell(f"{prediction.image}: " + ", ".join(f"{name} {p:.1%}" for name, p in pairs))
