"""`convatlas compare` and `convatlas report`: many runs, one page.

`compare` is long because each option is a line, twice.
"""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from convatlas.cli import options as o
from convatlas.cli.console import OUT, clock, count, printable, say, tell, tell_json
from convatlas.errors import UserError
from convatlas.models.papers import PAPERS
from convatlas.records import codec, storage
from convatlas.records.naming import split_names
from convatlas.records.run import Recipe, RunSummary, read_run
from convatlas.records.study import Comparison

if TYPE_CHECKING:
    from convatlas.data.dataset import DataSet
    from convatlas.study.compare import Plan

DEFAULT_EPOCHS = 4
UNSAID: dict[str, Any] = dict.fromkeys(("epochs", "minutes", "lr", "weight_decay", "flip", "crop"))
"""Options that a comparison leaves to their defaults unless they are given."""
SAID = (
    "epochs",
    "minutes",
    "batch_size",
    "lr",
    "weight_decay",
    "schedule",
    "label_smoothing",
    "crop",
    "validation",
    "image_size",
    "precision",
    "device",
)
"""Settings that the command in the report names where they are not the default."""


def compare(
    context: typer.Context,
    models: Annotated[str | None, typer.Option("--models", help="Comma-separated (default: the eight pocket members).")] = None,
    data: o.Data = "shapes",
    data_root: o.DataRoot = None,
    epochs: o.Epochs = None,
    minutes: o.Minutes = None,
    seeds: Annotated[str, typer.Option("--seeds", help="How many seeds, such as 3, or which, such as 4,7.")] = "1",
    batch_size: o.BatchSize = 128,
    lr: o.LearningRate = None,
    optimizer: o.Optimizer = "adamw",
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = "one-cycle",
    label_smoothing: o.LabelSmoothing = 0.1,
    flip: o.Flip = None,
    crop: o.Crop = None,
    validation: o.Validation = 0.1,
    image_size: o.ImageSize = None,
    precision: o.Precision = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New folder (default: below runs/).")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the unfinished comparison in this folder.")] = None,
    no_verify: o.NoVerify = False,
    skip_unreadable: o.SkipUnreadable = False,
    code: o.Code = None,
    as_json: o.Json = False,
) -> None:
    """Train several models under one recipe and an equal budget; write report.html, results.csv and results.json."""
    o.use_allocator("auto")
    if resume is not None:
        o.nothing_beside_resume(context)
        o.trust_code(code)
        _go_on(resume, data_root, threads=threads, as_json=as_json)
        return
    if code:
        raise UserError("--code is for --resume: files that are named as models are run anyway", fix="Leave it out.")
    o.check_new(out)
    parted = validation if o.on_the_command_line(context, "validation") else None
    chosen = o.DataOptions(data, data_root, image_size, validation, not no_verify, skip_unreadable, parted=parted)
    names = tuple(map(o.typed_model, split_names(models))) if models is not None else _pocket_members()
    recipe = o.make_recipe(
        names[0] if names else "",
        chosen,
        epochs=epochs if epochs is not None or minutes is not None else DEFAULT_EPOCHS,
        minutes=minutes,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        flip=flip,
        crop=crop,
        batch_size=batch_size,
        schedule=schedule,
        label_smoothing=label_smoothing,
        precision=precision,
        device=device,
    )
    given = o.on_the_command_line(context, "batch_size")
    place = out or o.fresh_folder("compare")
    _begin(recipe, chosen, names, o.parse_seeds(seeds), out=place, batch_given=given, threads=threads, as_json=as_json)


def _pocket_members() -> tuple[str, ...]:
    return tuple(paper.pocket for paper in PAPERS.values())


def _begin(
    recipe: Recipe,
    chosen: o.DataOptions,
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    *,
    out: Path,
    batch_given: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    from convatlas.cli.working import load, say_what_it_is, tied_to, use_threads
    from convatlas.models.registry import find_variant
    from convatlas.models.user_files import codes_of
    from convatlas.study.compare import Plan, begin, check_plan
    from convatlas.training.recipe import check_recipe

    for name in names:
        find_variant(name)
    check_recipe(recipe)
    use_threads(threads)
    data = load(chosen)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    shared = tied_to(recipe, data, batch_given=batch_given)
    plan = Plan(out.name, now, _command(recipe, names, seeds), names, seeds, shared, codes_of(names))
    check_plan(plan, data)
    say_what_it_is(data)
    begin(plan, out)
    _run(out, plan, data, as_json=as_json)


def _command(recipe: Recipe, names: tuple[str, ...], seeds: tuple[int, ...]) -> str:
    """What to type for the same comparison: every setting that is not the default. The data's place is the reader's own."""
    plain = o.make_recipe("", o.DataOptions(recipe.data, None, None, 0.1, True, False), **UNSAID, optimizer=recipe.optimizer)
    words = ["convatlas compare", f"--models {shlex.quote(','.join(names))}", f"--data {recipe.data}"]
    words.append(f"--seeds {','.join(map(str, seeds))}{',' if len(seeds) == 1 else ''}")
    words += [f"--optimizer {recipe.optimizer}"] if recipe.optimizer != "adamw" else []
    for setting in SAID:
        value = getattr(recipe, setting)
        if value != getattr(plain, setting) or (setting == "validation" and recipe.parted is not None):
            words.append(f"--{setting.replace('_', '-')} {value}")
    if recipe.flip != plain.flip:
        words.append("--flip" if recipe.flip else "--no-flip")
    if recipe.skip_unreadable:
        words.append("--skip-unreadable")
    if recipe.data in ("folder", "csv"):
        words.append("--data-root ...")
    return " ".join(words)


def _go_on(folder: Path, root: Path | None, *, threads: int | None, as_json: bool) -> None:
    from convatlas.cli.working import load_for, threads_before, use_threads
    from convatlas.models.registry import find_variant
    from convatlas.study.compare import Plan, run_name

    plan = codec.read(Plan, folder / "plan.json")
    for name in plan.models:
        find_variant(name)
    before = (threads_before(folder / run_name(recipe)) for recipe in plan.recipes())
    use_threads(next((each for each in before if each is not None), None) if threads is None else threads)
    _run(folder, plan, load_for(plan.recipe, root), as_json=as_json)


def _run(folder: Path, plan: "Plan", data: "DataSet", *, as_json: bool) -> None:
    """Make what is missing, and write the results whether or not all of it could be made."""
    from convatlas.cli.working import watching
    from convatlas.study.compare import run_comparison, summarise

    runs = len(plan.models) * len(plan.seeds)
    with storage.held(folder):
        try:
            with watching(runs, folder, again_command(folder)) as watch:
                run_comparison(folder, data=data, watch=watch, each=lambda summary: watch.run_done(_outcome(summary)))
        finally:
            comparison = summarise(folder, data=data)
            storage.write_text(folder / "results.json", codec.to_text(comparison))
            write_page(folder)
    if as_json:
        tell_json({"folder": str(folder), **codec.to_plain(comparison)})
    else:
        OUT.print(_table(comparison))
        tell(f"report: {folder / 'report.html'}")
    if not any(row.accuracies for row in comparison.rows):
        raise UserError("no model could be trained", fix=f"{comparison.rows[0].cause}")


def _outcome(summary: RunSummary) -> str:
    if summary.test_accuracy is None:
        return f"{summary.model} seed {summary.seed}: {summary.status}"
    return (
        f"{summary.model} seed {summary.seed}: {summary.test_accuracy:.2%} on test, {clock(summary.train_seconds)} of training "
        f"at {summary.images_per_second:,.0f} images/s"
    )


def _table(comparison: Comparison) -> Table:
    """The comparison at a glance, best first."""
    n = len(comparison.seeds)
    title = f"{comparison.data}, {comparison.budget}, {n} seed{'s' if n > 1 else ''}, {comparison.n_test:,} test images"
    table = Table(title=printable(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("params", "MACs", "time", "images/s", "test %", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(comparison.rows, key=lambda r: -r.accuracy.mean if r.accuracy else 1.0):
        if row.accuracy is None:
            table.add_row(row.model, "", "", "", "", "-", printable((row.cause or "")[:60]))
            continue
        interval = f"{100 * row.accuracy.low:.1f} - {100 * row.accuracy.high:.1f}"
        speed = f"{row.images_per_second:,.0f}"
        accuracy = f"{100 * row.accuracy.mean:.2f}"
        table.add_row(row.model, count(row.params), count(row.macs), clock(row.train_seconds), speed, accuracy, interval)
    return table


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `convatlas compare` has written.")], as_json: o.Json = False
) -> None:
    """Make report.html and results.csv anew from the files of a comparison."""
    complete = write_page(folder)
    if not complete:
        say(f"this comparison is not complete; go on with: {again_command(folder)}")
    if as_json:
        tell_json({"report": str(folder / "report.html"), "table": str(folder / "results.csv")})
    else:
        tell(f"report: {folder / 'report.html'}")


def again_command(folder: Path) -> str:
    """What goes on with an unfinished comparison."""
    return f"convatlas compare --resume {shlex.quote(str(folder))}"


def write_page(folder: Path) -> bool:
    """Write report.html and results.csv from results.json and the run folders; returns whether the comparison is complete."""
    from convatlas.report.html import comparison_page
    from convatlas.report.table import comparison_csv

    comparison = codec.read(Comparison, folder / "results.json")
    runs = [read_run(folder / name) for row in comparison.rows for name in row.runs]
    storage.write_text(folder / "report.html", comparison_page(comparison, runs, continue_with=again_command(folder)))
    storage.write_text(folder / "results.csv", comparison_csv(comparison, runs))
    return comparison.complete
