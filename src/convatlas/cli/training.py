"""`convatlas train`, `eval` and `predict`: one run, made and used.

`train` is long because each option is a line, twice.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from convatlas.cli import options as o
from convatlas.cli.console import clock, count, counted, say, tell, tell_csv, tell_json
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.finished import config_of, result_in
from convatlas.records.inference import UNTRIED, InferenceChoice
from convatlas.records.run import Evaluation, Prediction, Recipe, RunSummary

SHOWN_CLASSES = 20
RECIPE_FIELDS = frozenset(field.name for field in fields(Recipe))


def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A model, such as resnet.pocket, a configured one, or net.py:make.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Begin with a recipe of `convatlas recipes`.")] = None,
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
    patience: o.Patience = 0,
    flip: o.Flip = None,
    crop: o.Crop = None,
    cutout: o.Cutout = 0,
    augment: o.Augment = "none",
    mixup: o.MixUp = 0.0,
    cutmix: o.CutMix = 0.0,
    validation: o.Validation = 0.1,
    data_fraction: o.DataFraction = 1.0,
    image_size: o.ImageSize = None,
    precision: o.Precision = "auto",
    memory_format: o.MemoryFormat = "auto",
    convolutions: o.Convolutions = "auto",
    compile: o.Compile = "auto",
    sync_batchnorm: o.SyncBatchNorm = False,
    allocator: o.Allocator = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    gradients: Annotated[bool, typer.Option("--gradients", help="Keep each layer's gradients, once an epoch.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the engine chose for this machine, and why.")] = False,
    no_verify: o.NoVerify = False,
    skip_unreadable: o.SkipUnreadable = False,
    code: o.Code = None,
    as_json: o.Json = False,
) -> None:
    """Train one model: one recipe in, one run folder out."""
    o.use_allocator(allocator)
    if resume is not None:
        o.nothing_beside_resume(context)
        o.trust_code(code)
        _resume(resume, data_root, threads=threads, explain=explain, as_json=as_json)
        return
    if code:
        raise UserError("--code is for --resume: a file that is named as the model is run anyway", fix="Leave it out.")
    o.check_new(out)
    settings = {name: value for name, value in context.params.items() if name in RECIPE_FIELDS}
    if recipe is None:
        made = o.recipe_of(settings)
    else:
        made = o.changed(recipe, {name: value for name, value in settings.items() if o.on_the_command_line(context, name)})
    if o.on_the_command_line(context, "validation"):
        made = replace(made, parted=validation)
    chosen = o.data_of(made, data_root, verify=not no_verify)
    given = recipe is not None or o.on_the_command_line(context, "batch_size")
    _train(made, chosen, out, batch_given=given, threads=threads, explain=explain, as_json=as_json)


def _train(
    recipe: Recipe,
    chosen: o.DataOptions,
    out: Path | None,
    *,
    batch_given: bool,
    threads: int | None,
    explain: bool,
    as_json: bool,
) -> None:
    from convatlas.cli.working import in_turn, load, named_here, say_what_it_is, tied_to, together, use_threads, watching
    from convatlas.training import loop
    from convatlas.training.recipe import check_recipe

    with together() as world:
        recipe = named_here(recipe)
        check_recipe(recipe)
        use_threads(threads, world)
        data = in_turn(world, lambda: load(chosen, quiet=not world.leads))
        recipe = tied_to(recipe, data, batch_given=batch_given)
        loop.prepared(recipe, data, world)
        folder = world.agreed(lambda: out or o.fresh_folder(recipe.model))  # its name may come from the clock
        if world.leads:
            say_what_it_is(data)
        again = _again(folder, recipe.model)
        with watching(1, folder, again, explain=explain, silent=not world.leads) as watch:
            summary = loop.train(recipe, folder, data=data, watch=watch, world=world)
        if world.leads:
            _tell_run(summary, folder, as_json=as_json)


def _resume(folder: Path, root: Path | None, *, threads: int | None, explain: bool, as_json: bool) -> None:
    from convatlas.cli.working import in_turn, load_for, threads_before, together, use_threads, watching
    from convatlas.training.loop import resume

    with together() as world:
        recipe = world.agreed(lambda: codec.read(Recipe, folder / "recipe.json"))
        before = world.agreed(lambda: threads_before(folder, world.ranks))
        use_threads(before if threads is None else threads, world)
        if world.leads:
            with storage.held(folder):
                pass  # who comes second is told before the data are loaded
        data = in_turn(world, lambda: load_for(recipe, root, quiet=not world.leads))
        again = _again(folder, recipe.model)
        with watching(1, folder, again, explain=explain, silent=not world.leads) as watch:
            summary = resume(folder, data=data, watch=watch, world=world)
        if world.leads:
            _tell_run(summary, folder, as_json=as_json)


def _again(folder: Path, model: str) -> str:
    """The command that goes on with the run in `folder`."""
    return f"convatlas train --resume {shlex.quote(str(folder))}{_with_code(model)}"


def _with_code(model: str) -> str:
    """The option that a command needs for a network of the user's own."""
    from convatlas.models.configuration import factory_of, is_user_file

    return f" --code {shlex.quote(str(factory_of(model)[0]))}" if is_user_file(model) else ""


def _tell_run(summary: RunSummary, folder: Path, *, as_json: bool) -> None:
    if as_json:
        tell_json({"folder": str(folder), **codec.to_plain(summary)})
        return
    seen = counted(summary.n_val, "validation image")
    val = "no validation images," if summary.val_accuracy is None else f"{summary.val_accuracy:.2%} on {seen}"
    tell(
        f"{summary.model}: {val} after {counted(summary.epochs_done, 'epoch')}, "
        f"{clock(summary.train_seconds)} of training at {summary.images_per_second:,.0f} images/s "
        f"({count(summary.params)} parameters, {count(summary.macs)} MACs at {summary.image_size} pixels, seed {summary.seed})"
    )
    for name in summary.skipped_images:
        say(f"left out, unreadable: {name}")
    tell(f"run folder: {folder}")
    if summary.n_test:
        tell(f"next: convatlas eval {shlex.quote(str(folder))} --split test{_with_code(summary.model)}")


def evaluate(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str | None, typer.Argument(help="Other images: a folder, a CSV list, or a set of `convatlas data`.")] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test. Each look at test is counted.")] = "val",
    data_root: o.DataRoot = None,
    threads: o.Threads = None,
    engine: Annotated[str, typer.Option("--engine", help="auto, eager, folded, compile or openvino: all in fp32.")] = "auto",
    explain: Annotated[bool, typer.Option("--explain", help="Say which ways of computing were tried, and how they did.")] = False,
    code: o.Code = None,
    as_json: o.Json = False,
) -> None:
    """Judge a finished run on a split of its data, or on other images."""
    if split not in ("train", "val", "test"):
        raise UserError(f"there is no split called {split!r}", fix="Choose train, val or test.")
    folder = result_in(folder)
    if data is not None:
        _evaluate_on(context, folder, data, threads=threads, code=code, as_json=as_json)
        return
    config_of(folder)
    recipe = codec.read(Recipe, folder / "recipe.json")
    o.trust_code(code)
    from convatlas.cli.progress import loading_bar
    from convatlas.cli.working import load_for, use_threads
    from convatlas.training.apply import evaluate_run
    from convatlas.training.inference import Engine
    from convatlas.training.inference_ways import ways_of

    ways_of(engine, exact=True)
    use_threads(threads)
    wanted = Engine(engine, say, lambda choice: _tell_choice(choice, explain=explain))
    images = load_for(recipe, data_root)
    with loading_bar() as progress:
        outcome = evaluate_run(folder, data=images, split=split, engine=wanted, progress=progress)
    if as_json:
        tell_json(outcome)
        return
    _tell_evaluation(outcome, recipe.model)
    if split == "test":
        looks = codec.read(RunSummary, folder / "summary.json").test_looks
        say(f"looks at the test split so far: {looks}")


def _evaluate_on(
    context: typer.Context, folder: Path, data: str, *, threads: int | None, code: list[Path] | None, as_json: bool
) -> None:
    """Judge the network in the folder on other images."""
    for name in ("split", "data_root", "engine", "explain"):
        if o.on_the_command_line(context, name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is for the data that the run was made with", fix="Leave it out, or the other images.")
    config = config_of(folder)
    o.trust_code(code)
    from convatlas.cli.progress import loading_bar
    from convatlas.cli.working import use_threads
    from convatlas.transfer.judging import evaluate_on

    use_threads(threads)
    with loading_bar() as progress:
        outcome = evaluate_on(folder, data, progress=progress, note=say)
    tell_json(outcome) if as_json else _tell_evaluation(outcome, config.model)


def _tell_choice(choice: InferenceChoice, *, explain: bool) -> None:
    """How the network is computed, for the person at the terminal: a line where it is not as it is, or all that was tried."""
    if explain or choice.way != UNTRIED:
        say(choice.sentence)
    if not explain:
        return
    for trial in choice.trials:
        taken = "" if trial.seconds is None else f"{trial.seconds * 1e3:9.1f} ms for {counted(choice.timed, 'image')}"
        gain = "" if trial.speed_up is None else f", x {trial.speed_up:.2f} ({trial.low:.2f} to {trial.high:.2f})"
        error = "" if trial.error is None or trial.name == UNTRIED else f"  error {trial.error:.2g}"
        say(f"  {trial.name:<14} {taken}{gain}{error}  {trial.note}".rstrip())


def _tell_evaluation(outcome: Evaluation, model: str) -> None:
    from convatlas.transfer.judging import EVERYTHING

    five = "" if outcome.top5 is None else f", top-5 {outcome.top5:.2%}"
    views = "" if outcome.average == "none" else f" (answers averaged over views: {outcome.average})"
    images = f"all {outcome.n:,} images" if outcome.split == EVERYTHING else f"{outcome.n:,} {outcome.split} images"
    tell(f"{model} on {images}: top-1 {outcome.top1:.2%}{five}, loss {outcome.loss:.4f}{views}")
    if len(outcome.classes) > SHOWN_CLASSES:
        return
    for i, (name, row) in enumerate(zip(outcome.classes, outcome.confusion, strict=True)):
        if sum(row):
            tell(f"  {name:<16} {row[i] / sum(row):7.2%}  of {sum(row):,}")


def predict(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a finished tournament.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures; a folder stands for all that lie below it.")],
    top: Annotated[int, typer.Option("--top", help="How many classes to name.", min=1)] = 5,
    threads: o.Threads = None,
    engine: Annotated[str, typer.Option("--engine", help="auto, eager, folded, bf16, compile or openvino.")] = "auto",
    explain: Annotated[bool, typer.Option("--explain", help="Say which ways of computing were tried, and how they did.")] = False,
    code: o.Code = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="The result as CSV on standard output, a line for each picture.")] = False,
    as_json: o.Json = False,
) -> None:
    """Say what a finished run sees in pictures."""
    if as_csv and as_json:
        raise UserError("--csv and --json are two forms of one answer", fix="Leave one of them out.")
    folder = result_in(folder)
    config = config_of(folder)
    o.trust_code(code)
    from convatlas.cli.working import use_threads
    from convatlas.training.apply import predict_pictures
    from convatlas.training.inference import Engine
    from convatlas.training.inference_ways import ways_of

    ways_of(engine, exact=False)
    use_threads(threads)
    pictures = [picture for place in images for picture in _pictures_in(place)]
    wanted = Engine(engine, say, lambda choice: _tell_choice(choice, explain=explain))
    predictions = predict_pictures(folder, pictures, top=top, engine=wanted)
    if as_csv:
        tell_csv(_table(predictions, min(top, config.num_classes)))
    elif as_json:
        tell_json(predictions)
    else:
        for prediction in predictions:
            _tell_prediction(prediction)
    _refuse_unread(predictions)


def _pictures_in(place: Path) -> list[Path]:
    """The picture file itself; of a folder all picture files below it, in order, but for hidden ones."""
    from convatlas.data.pictures import SUFFIXES, printable

    try:
        is_folder = place.is_dir()
    except OSError:
        is_folder = False  # reading it says what is wrong
    if not is_folder:
        return [place]
    found = []
    for above, folders, names in os.walk(place, onerror=_cannot_list):  # links to folders, which may lead round, are not entered
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(above, name) for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
    if not found:
        known = ", ".join(sorted(SUFFIXES))
        raise UserError(f"there are no pictures in {printable(place)}", fix=f"Name a folder with files that end in {known}.")
    return sorted(found)


def _cannot_list(error: OSError) -> NoReturn:
    """A folder that cannot be listed is not passed over in silence."""
    raise UserError(f"{error.filename} cannot be listed: {error.strerror}", fix="Check its permissions.") from None


def _table(predictions: Sequence[Prediction], top: int) -> Iterator[list[str | float | None]]:
    """A heading, then a row for each picture; one that could not be read has empty cells."""
    yield ["picture", *(f"{what} {i}" for i in range(1, top + 1) for what in ("class", "probability"))]
    for each in predictions:
        row: list[str | float | None] = [each.image]
        for name, probability in zip(each.classes, each.probabilities, strict=True):
            row += [name, probability]
        yield row + [None] * (1 + 2 * top - len(row))


def _refuse_unread(predictions: Sequence[Prediction]) -> None:
    """Say which pictures could not be read, and end with an error if there are any."""
    unread = [p for p in predictions if p.error is not None]
    if unread:
        what = f"{len(unread)} of {len(predictions)} pictures could not be read: {unread[-1].error}"
        for prediction in unread[:-1]:
            say(f"unreadable: {prediction.error}")
        raise UserError(what, fix="Check the path and the file.")


def _tell_prediction(prediction: Prediction) -> None:
    if prediction.error is None:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        tell(f"{prediction.image}: " + ", ".join(f"{name} {p:.1%}" for name, p in pairs))
