"""`convatlas compare`: one recipe, several models and seeds, an equal budget, one record of the outcome.

A comparison is a folder: `plan.json`, one run folder for each model and seed below `runs/`, and the results. Running the
same plan again in the same folder makes only what is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from convatlas.data.dataset import DataSet
from convatlas.errors import StorageError, UserError
from convatlas.models.papers import titled
from convatlas.models.registry import find_variant
from convatlas.records import codec, storage
from convatlas.records.naming import short_name
from convatlas.records.run import Recipe, RunRecord, RunSummary, read_run
from convatlas.records.study import Comparison, ComparisonRow
from convatlas.study.statistics import accuracy_interval
from convatlas.training.apply import judge_once
from convatlas.training.engine import choose
from convatlas.training.environment import environment
from convatlas.training.loop import resume, train
from convatlas.training.prepare import examine
from convatlas.training.watch import Watch


@dataclass(frozen=True)
class Plan:
    """What a comparison is to make. `recipe` is what all runs share; its model and seed are put in for each.

    `code` has the SHA-256 of the Python file of each model that is the user's own.
    """

    name: str
    date: str
    command: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    code: dict[str, str] = field(default_factory=dict)

    def recipes(self) -> list[Recipe]:
        """One recipe for each model and seed, seed by seed, so that an unfinished comparison still compares."""
        return [
            replace(self.recipe, model=model, seed=seed, code_sha256=self.code.get(model))
            for seed in self.seeds
            for model in self.models
        ]


def check_plan(plan: Plan, data: DataSet) -> None:
    """Raise a UserError if any run could not begin, before the first one does."""
    for what, chosen in (("models", plan.models), ("seeds", plan.seeds)):
        if not chosen:
            raise UserError(f"no {what} to compare", fix=f"Name at least one with --{what}.")
        twice = {str(item) for item in chosen if chosen.count(item) > 1}
        if twice:
            raise UserError(f"{', '.join(sorted(twice))} stands twice in --{what}", fix="Name each once.")
    for recipe in plan.recipes():
        network, _ = examine(recipe, data)
        choose(recipe, network)


def begin(plan: Plan, folder: Path) -> None:
    """Make the comparison's folder and keep the plan in it."""
    with storage.beginning(folder):
        storage.write_text(folder / "plan.json", codec.to_text(plan))


def run_comparison(folder: Path, *, data: DataSet, watch: Watch, each: Callable[[RunSummary], None]) -> None:
    """Make every run of the plan in `folder` that is not finished, and look at the test split once in each.

    A run that fails keeps its cause in its folder, and the others go on; a disk that is full stops them all. `each` is
    called with every run's summary.
    Raises Stopped as soon as the watcher asks for it; what is finished stays.
    """
    plan = codec.read(Plan, folder / "plan.json")
    for recipe in plan.recipes():
        each(_run_one(folder / run_name(recipe), recipe, data=data, watch=watch))


def _run_one(run: Path, recipe: Recipe, *, data: DataSet, watch: Watch) -> RunSummary:
    """Make the run in the folder `run` if it is not finished, and look at its test split if nobody has yet."""
    try:
        summary = run / "summary.json"
        if not (run / "recipe.json").exists():
            storage.clear_unbegun(run)
            train(recipe, run, data=data, watch=watch)
        elif not summary.exists() or codec.read(RunSummary, summary).status in ("running", "interrupted"):
            resume(run, data=data, watch=watch)
        if codec.read(RunSummary, summary).test_looks == 0:
            judge_once(run, data=data)
    except UserError as error:
        if isinstance(error, StorageError) or not (run / "summary.json").exists():
            raise
        watch.note(f"{recipe.model} (seed {recipe.seed}) failed: {error}")
    return codec.read(RunSummary, run / "summary.json")


def run_name(recipe: Recipe) -> str:
    """The run folder of a model and seed, relative to the comparison's."""
    return f"runs/{short_name(recipe.model)}-seed{recipe.seed}"


def read_runs(folder: Path) -> dict[str, RunRecord]:
    """All runs that have begun in a comparison's folder, by their relative names, in the plan's order."""
    plan = codec.read(Plan, folder / "plan.json")
    names = [run_name(recipe) for recipe in plan.recipes()]
    return {name: read_run(folder / name) for name in names if (folder / name / "summary.json").exists()}


def summarise(folder: Path, *, data: DataSet) -> Comparison:
    """What the runs in a comparison's folder say so far."""
    plan = codec.read(Plan, folder / "plan.json")
    runs = read_runs(folder)
    rows = tuple(_row(model, plan, runs) for model in plan.models)
    recipe = plan.recipe
    return Comparison(
        name=plan.name,
        date=plan.date,
        command=plan.command,
        complete=all(len(row.accuracies) == len(plan.seeds) for row in rows),
        budget=_budget(recipe),
        data=data.name,
        data_description=data.description,
        n_train=len(data.train),
        n_val=len(data.val),
        n_test=len(data.test),
        classes=data.classes,
        models=plan.models,
        seeds=plan.seeds,
        recipe=recipe,
        rows=rows,
        environment=environment(),
    )


def _budget(recipe: Recipe) -> str:
    """The budget of each run in words."""
    if recipe.epochs is None:
        return f"{recipe.minutes:g} minutes of training each"
    return f"{recipe.epochs} epoch{'' if recipe.epochs == 1 else 's'} each"


def _row(model: str, plan: Plan, runs: dict[str, RunRecord]) -> ComparisonRow:
    """One model over its finished seeds; means over those, where seeds differ."""
    named = {name: run for name, run in runs.items() if run.recipe.model == model}
    done = [run.summary for run in named.values() if run.summary.test_accuracy is not None]
    causes = [f"seed {run.summary.seed}: {run.summary.cause}" for run in named.values() if run.summary.cause]
    accuracies = tuple(s.test_accuracy for s in done if s.test_accuracy is not None)
    family = find_variant(model).family
    title, year = titled(family)
    first = done[0] if done else next((run.summary for run in named.values()), None)
    return ComparisonRow(
        model=model,
        family=family,
        title=title,
        year=year,
        params=first.params if first else 0,
        macs=first.macs if first else 0,
        image_size=first.image_size if first else 0,
        seeds=tuple(s.seed for s in done),
        accuracy=accuracy_interval(accuracies, n_images=done[0].n_test) if done else None,
        accuracies=accuracies,
        train_seconds=_mean([s.train_seconds for s in done]),
        images_seen=round(_mean([float(s.images_seen) for s in done])),
        images_per_second=_mean([s.images_per_second for s in done]),
        runs=tuple(named),
        cause="; ".join(causes) if causes else (None if done else "not run yet"),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
