"""`convatlas finetune`: a pretrained network onto a folder of images, by one strategy or by a tournament of them.

`finetune` is long because each option is a line, twice.
"""

import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from convatlas.cli import options as o
from convatlas.cli.console import clock, count, counted, say, tell, tell_json
from convatlas.cli.finetuning_options import check_used, names_of, policy_of
from convatlas.data.policy_names import POLICIES
from convatlas.errors import UserError
from convatlas.records import codec, storage
from convatlas.records.finished import part_of_tournament, tournament_over
from convatlas.records.run import ModelConfig, Recipe, RunSummary
from convatlas.records.tournament import PLAN, TRIALS, WINNER, Tournament, TournamentPlan
from convatlas.training.watch import Watch
from convatlas.transfer.known import AUTO, BALANCES, CACHED_EPOCHS, STRATEGIES, UNRATED, check_optimizer

DEFAULT_EPOCHS, PROBE_EPOCHS = 10, CACHED_EPOCHS
"""A probe has as many whether or not its features are cached: the result is to be the same."""
LR_STEPS = 60
"""Of the range test: an eighth of an epoch of 5,000 images in batches of 32, and some epochs of a small set."""
SETTINGS = (
    "epochs", "minutes", "seed", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "warmup", "label_smoothing", "ema",
    "clip_grad", "flip", "patience", "precision", "device", "skip_unreadable", "validation",
)  # fmt: skip
TUNING = ("mixup", "cutmix", "balance", "focal", "stages", "layer_decay", "l2_sp", "probe_share", "copies")


def finetune(
    context: typer.Context,
    data: Annotated[str | None, typer.Argument(help="A folder of images, a CSV list, or a set of `convatlas data`.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="See `convatlas weights`.")] = "efficientnet_lite0",
    weights: Annotated[str, typer.Option("--weights", help="default, timm, source:tag, hf-hub:owner/name, a file.")] = "default",
    strategy: Annotated[str, typer.Option("--strategy", "-s", help=f"{AUTO} (a tournament), {', '.join(STRATEGIES)}.")] = AUTO,
    strategies: Annotated[str | None, typer.Option("--strategies", help="Who competes, with commas between.")] = None,
    epochs: o.Epochs = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Budget of the tournament, or of the training.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder for the result (default: below runs/).")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with what is unfinished in this folder.")] = None,
    data_root: Annotated[Path | None, typer.Option("--data-root", help="With --resume: where the images are now.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides folds, order, augmentation and the new classifier.")] = 0,
    folds: Annotated[int, typer.Option("--folds", help="Of the tournament's cross-validation.")] = 3,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Trainings of each finalist (default: one a fold).")] = None,
    halving: Annotated[bool, typer.Option("--halving/--no-halving", help="Only the better half goes on after a round.")] = True,
    augment: Annotated[str | None, typer.Option("--augment", help=f"{', '.join(POLICIES)} (light; probe: none).")] = None,
    mixup: o.MixUp = 0.0,
    cutmix: o.CutMix = 0.0,
    balance: Annotated[str, typer.Option("--balance", help=f"For classes of unequal size: {', '.join(BALANCES)}.")] = "none",
    focal: Annotated[float, typer.Option("--focal", help="Exponent of the focal loss; 0: cross-entropy.")] = 0.0,
    stages: Annotated[int, typer.Option("--stages", help="How many stages last-stages trains.")] = 1,
    layer_decay: Annotated[float, typer.Option("--layer-decay", help="From one group of layers to the one below.")] = 0.5,
    l2_sp: Annotated[float, typer.Option("--l2-sp", help="Pull towards the pretrained weights.")] = 0.1,
    probe_share: Annotated[float, typer.Option("--probe-share", help="Share of lp-ft for the classifier alone.")] = 0.3,
    copies: Annotated[int | None, typer.Option("--copies", help="Augmented copies of which a probe keeps features.")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="A probe computes the features of each image once.")] = True,
    batch_size: o.BatchSize = 32,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate (default: the strategy's).")] = None,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Find the learning rate by a range test first.")] = False,
    optimizer: Annotated[str, typer.Option("--optimizer", help="adamw, adam, or sgd (with --lr or --find-lr).")] = "adamw",
    weight_decay: Annotated[float, typer.Option("--weight-decay")] = 0.01,
    schedule: o.Schedule = "cosine",
    warmup: o.Warmup = 0.1,
    label_smoothing: o.LabelSmoothing = 0.1,
    ema: o.Ema = 0.0,
    clip_grad: o.ClipGrad = 1.0,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Mirror half of the images.")] = True,
    patience: o.Patience = 0,
    validation: Annotated[float, typer.Option("--validation", help="Held out where there is no validation split.")] = 0.15,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Pixels that the network sees.")] = None,
    precision: o.Precision = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    skip_unreadable: o.SkipUnreadable = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the engine chose, and why.")] = False,
    as_json: o.Json = False,
) -> None:
    """Bring a pretrained network onto your images: by one strategy, or by the best that a tournament finds in the time given."""
    o.use_allocator("auto")
    if resume is not None:
        o.nothing_beside_resume(context)
        _resume(resume, data_root, threads=threads, explain=explain, as_json=as_json)
        return
    if data_root is not None:
        raise UserError("--data-root is for --resume", fix="Name the images as the first argument.")
    if data is None:
        raise UserError("no images are named", fix="Give a folder with one folder of pictures for each class.")
    o.check_new(out)
    given = context.params
    wanted = Wanted(
        place=data,
        model=model,
        weights=weights,
        names=names_of(strategy, strategies),
        settings={name: given[name] for name in SETTINGS},
        tuning={name: given[name] for name in TUNING},
        augment=augment,
        cache=cache,
        image_size=image_size,
        folds=folds,
        seeds=folds if seeds is None else seeds,
        halving=halving,
        parted=validation if o.on_the_command_line(context, "validation") else None,
    )
    check_used(context, wanted.names)
    if find_lr and (strategy == AUTO or lr is not None):
        raise UserError("--find-lr is for one strategy without --lr", fix="Name it with --strategy, or leave --find-lr out.")
    check_optimizer(optimizer, rated=lr is not None or find_lr)
    if find_lr:
        wanted.settings["lr"] = STRATEGIES[strategy].lr  # until another one is found
    if minutes is not None and strategy == "probe" and cache and not (mixup or cutmix):
        say(f"note: a probe on cached features has {CACHED_EPOCHS} epochs, and no minutes; --no-cache goes by the clock")
    if epochs is None and minutes is None:
        wanted.settings["epochs"] = PROBE_EPOCHS if strategy == "probe" else DEFAULT_EPOCHS
    _begin(wanted, out, tournament=strategy == AUTO, find_lr=find_lr, threads=threads, explain=explain, as_json=as_json)


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    place: str
    model: str
    weights: str
    names: tuple[str, ...]
    settings: dict[str, Any]
    tuning: dict[str, Any]
    augment: str | None
    cache: bool
    image_size: int | None
    folds: int
    seeds: int
    halving: bool
    parted: float | None


def _begin(
    wanted: Wanted, out: Path | None, *, tournament: bool, find_lr: bool, threads: int | None, explain: bool, as_json: bool
) -> None:
    from convatlas.cli.working import say_what_it_is, use_threads
    from convatlas.transfer.tournament import begin

    if not 2 <= wanted.folds <= 100 or not 1 <= wanted.seeds <= 100:
        raise UserError(f"folds are {wanted.folds} and seeds {wanted.seeds}", fix="Give 2 to 100 folds, and 1 to 100 seeds.")
    folder = out or o.fresh_folder(f"finetune-{wanted.model}")
    _check_place(wanted.place, folder)
    use_threads(threads)
    recipes, data = _recipes(wanted)
    say_what_it_is(data)
    if find_lr:
        recipes[0] = _with_found_lr(recipes[0], data)
    if not tournament:
        _single(recipes[0], folder, data, explain=explain, as_json=as_json)
        return
    plan = TournamentPlan(
        place=wanted.place if wanted.place in _named() else str(Path(wanted.place).absolute()),
        recipes=tuple(recipes),
        epochs=wanted.settings["epochs"],
        minutes=wanted.settings["minutes"],
        folds=wanted.folds,
        finals=wanted.seeds,
        seed=wanted.settings["seed"],
        validation=wanted.settings["validation"],
        skip_unreadable=wanted.settings["skip_unreadable"],
        halving=wanted.halving,
    )
    begin(plan, folder, data)
    _tournament(folder, data, explain=explain, as_json=as_json)


def _check_place(place: str, folder: Path) -> None:
    """Refuse a result among the images, which would be a class of its own the next time."""
    if place in _named():
        if Path(place).is_dir():
            say(f"note: {place} is the set of that name; for the folder here give ./{place}")
    elif Path(place).is_dir() and folder.resolve().is_relative_to(Path(place).resolve()):
        raise UserError(f"the result {folder} would lie among the images in {place}", fix="Name a folder elsewhere with --out.")


def _named() -> list[str]:
    from convatlas.data.catalog import CATALOG

    return [name for name, entry in CATALOG.items() if entry.kind != "your own"]


def _recipes(wanted: Wanted) -> tuple[list[Recipe], Any]:
    """A recipe for each strategy, and the data they are for."""
    from convatlas.cli.progress import loading_bar
    from convatlas.transfer.plan import check_place, load_for_tuning, recipe_for, start_from

    if wanted.place not in _named():
        check_place(wanted.place)  # before weights are fetched
    pretrained = any(STRATEGIES[name].pretrained for name in wanted.names)
    start = start_from(wanted.model, wanted.weights if pretrained else None, image_size=wanted.image_size)
    with loading_bar() as progress:
        data = load_for_tuning(
            wanted.place,
            start.preprocessing,
            validation=wanted.settings["validation"],
            parted=wanted.parted,
            skip_unreadable=wanted.settings["skip_unreadable"],
            progress=progress,
        )
    recipes = []
    for name in wanted.names:
        cached = name == "probe" and wanted.cache and not (wanted.tuning["mixup"] or wanted.tuning["cutmix"])
        policy = policy_of(name, wanted.augment)
        copies = wanted.tuning["copies"]
        if copies is None:
            copies = 4 if cached and policy != "none" else 1
        tuning = {**wanted.tuning, "policy": policy, "cached": cached, "copies": copies, "validation": wanted.parted}
        recipes.append(recipe_for(name, wanted.model, start, data, settings=wanted.settings, **tuning))
    return recipes, data


def _with_found_lr(recipe: Recipe, data: Any) -> Recipe:
    """The recipe with the learning rate that the range test suggests, if it suggests one."""
    from convatlas.cli.progress import loading_bar
    from convatlas.training.lr_range import lr_range
    from convatlas.transfer.tuning import method_of

    with loading_bar() as bar:
        found = lr_range(
            recipe,
            data=data,
            low=1e-6,
            steps=LR_STEPS,
            method=method_of(recipe, data),
            progress=lambda done, total: bar("range test", done, total),
        )
    if found.suggestion is None:
        if recipe.optimizer in UNRATED:
            raise UserError(f"the range test suggests no learning rate for {recipe.optimizer}: {found.rule}", fix="Give --lr.")
        say(f"learning rate {recipe.lr:g}, as the strategy has it; the range test suggests {found.rule}")
        return recipe
    say(f"learning rate {found.suggestion:.2g}: {found.rule} in a range test of {len(found.steps)} steps")
    return replace(recipe, lr=found.suggestion)


def _again(folder: Path) -> str:
    return f"convatlas finetune --resume {shlex.quote(str(folder))}"


def _single(recipe: Recipe, folder: Path, data: Any, *, explain: bool, as_json: bool, go_on: bool = False) -> None:
    """One strategy's training, its look at the test images, and what belongs into the folder."""
    from convatlas.cli.working import watching
    from convatlas.training import loop
    from convatlas.transfer.tuning import method_of

    method, kept = method_of(recipe, data), folder / "summary.json"  # which a run that was killed at once has not yet
    trained = go_on and kept.exists() and codec.read(RunSummary, kept).status == "finished"
    if trained and (folder / "README.md").exists():
        raise UserError(f"{folder} is finished already", fix="Use `convatlas eval` or `convatlas predict`.")
    with watching(1, folder, _again(folder), explain=explain) as watch:
        if trained:
            say("trained already; what was still to be written is written now")
        elif go_on:
            loop.resume(folder, data=data, watch=watch, method=method)
        else:
            loop.train(recipe, folder, data=data, watch=watch, method=method)
        _complete(folder, data, watch)
    summary = codec.read(RunSummary, kept)
    if as_json:
        tell_json({"folder": str(folder), **codec.to_plain(summary)})
        return
    assert recipe.tuning is not None
    val = "" if summary.val_accuracy is None else f"{summary.val_accuracy:.2%} on {counted(summary.n_val, 'validation image')}, "
    test = "" if summary.test_accuracy is None else f"{summary.test_accuracy:.2%} on {counted(summary.n_test, 'test image')}, "
    tell(
        f"{summary.model}, {recipe.tuning.strategy}: {val}{test}after {counted(summary.epochs_done, 'epoch')}, "
        f"{clock(summary.train_seconds)} of training ({count(summary.params)} parameters, seed {summary.seed})"
    )
    _tell_chance(summary, data)
    _tell_folder(folder, data)


def _tell_chance(summary: RunSummary, data: Any) -> None:
    """Say so if the network is no better than one that never looks."""
    accuracy, images = (summary.val_accuracy, data.val) if len(data.val) else (summary.test_accuracy, data.test)
    if accuracy is None or not len(images):
        return
    share = images.labels.bincount().max().item() / len(images)
    if accuracy <= share:
        say(
            f"note: to answer with the most frequent class each time would be right for {share:.2%}: "
            "try a smaller --lr (--find-lr), or more --epochs"
        )


def _complete(folder: Path, data: Any, watch: Watch) -> None:
    """What belongs beside the weights: the page of errors, and the model card."""
    from convatlas.models.published import published
    from convatlas.report.card import model_card
    from convatlas.report.errors_look import errors_page
    from convatlas.training.outcome import heeding
    from convatlas.transfer.result import complete

    errors = complete(folder, data, progress=heeding(watch))
    recipe = codec.read(Recipe, folder / "recipe.json")
    config, summary = codec.read(ModelConfig, folder / "config.json"), codec.read(RunSummary, folder / "summary.json")
    assert recipe.tuning is not None
    begun = [row for row in published(recipe.model) if recipe.tuning.weights in (row.name, row.source)]
    licence = begun[0].licence if begun else None
    described = data.description
    if (folder.parent / PLAN).exists():
        described += "; the winner of a tournament was trained on training and validation images together"
    card = model_card(config, recipe, summary, errors, data=described, licence=licence)
    storage.write_text(folder / "errors.html", errors_page(errors, model=recipe.model, data=described))
    storage.write_text(folder / "README.md", card)


def _tell_folder(folder: Path, data: Any) -> None:
    for name in data.skipped:
        say(f"left out, unreadable: {name}")
    tell(f"result: {folder} (weights, configuration, model card; the errors are in {folder / 'errors.html'})")
    tell(f"next: convatlas predict {shlex.quote(str(folder))} PICTURES...")


def _tournament(folder: Path, data: Any, *, explain: bool, as_json: bool) -> None:
    from convatlas.cli.working import watching
    from convatlas.report.tournament import tournament_page
    from convatlas.transfer.rounds import rounds_of, trials_of
    from convatlas.transfer.tournament import run_tournament

    plan = codec.read(TournamentPlan, folder / PLAN)
    n, n_test = len(data.train) + len(data.val), len(data.test)
    say(
        f"tournament: {n:,} images, training and validation together, in {plan.folds} folds; {n_test:,} test images are put aside"
    )
    runs = trials_of(rounds_of(plan), plan) + 1
    with watching(runs, folder, _again(folder), explain=explain) as watch:
        result = run_tournament(folder, data=data, watch=watch)
        _complete(folder / WINNER, data, watch)
    about = {name: (known.what, known.source) for name, known in STRATEGIES.items()}
    storage.write_text(folder / "report.html", tournament_page(result, about=about, command=_again(folder)))
    if as_json:
        tell_json({"folder": str(folder), **codec.to_plain(result)})
        return
    _tell_tournament(result)
    tell(f"report: {folder / 'report.html'}")
    _tell_folder(folder / WINNER, data)


def _tell_tournament(result: Tournament) -> None:
    tell(f"{'strategy':<14}{'accuracy':>9}  {'95 % interval':<18}{'trainings':>9}{'round':>7}{'seconds each':>14}")
    for each in result.standings:
        interval = f"{each.accuracy.low:.1%} to {each.accuracy.high:.1%}"
        tell(f"{each.strategy:<14}{each.accuracy.mean:>9.1%}  {interval:<18}{each.trials:>9}{each.rung:>7}{each.seconds:>14.1f}")
    for sentence in result.advice:
        tell(sentence)
    if result.test is not None:
        test, low, high = result.test, result.test.low, result.test.high
        tell(f"{result.winner}, trained on all {result.n_images} images: {test.mean:.2%} on {test.n} test images,")
        tell(f"  95 % interval {low:.1%} to {high:.1%}")


def _resume(folder: Path, data_root: Path | None, *, threads: int | None, explain: bool, as_json: bool) -> None:
    from convatlas.cli.working import load_for, use_threads

    part = part_of_tournament(folder)
    if part is not None:
        raise part
    plan = folder / PLAN
    if plan.exists() and tournament_over(folder):
        raise UserError(f"{folder} is finished already", fix=f"Its result is {folder / WINNER}.")
    use_threads(_threads_before(folder) if threads is None else threads)
    if plan.exists():
        begun = codec.read(TournamentPlan, plan)
        first, place = begun.recipes[0], None if begun.place in _named() else Path(begun.place)
        _tournament(folder, load_for(first, data_root or place), explain=explain, as_json=as_json)
        return
    recipe = codec.read(Recipe, folder / "recipe.json")
    if recipe.tuning is None:
        raise UserError(f"{folder} is a run of ordinary training", fix=f"Use `convatlas train --resume {folder}`.")
    _single(recipe, folder, load_for(recipe, data_root), explain=explain, as_json=as_json, go_on=True)


def _threads_before(folder: Path) -> int | None:
    """With how many threads the run began, or the first trial of a tournament: the trials to come are to have as many."""
    from convatlas.cli.working import threads_before

    for run in (folder, *sorted((folder / TRIALS).glob("*")), folder / WINNER):
        with suppress(UserError):  # who goes on with a damaged one says so
            before = threads_before(run)
            if before is not None:
                return before
    return None
