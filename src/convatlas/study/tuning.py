"""The search for settings that every variant of a study gets before its replicates: as many trials for each, on validation alone.

Trials are runs like any others, below `tune/VARIANT/`. Optuna (Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter
Optimization Framework", KDD) suggests their settings, stops hopeless ones, and keeps those that have ended in its journal, a line
each. The suggestion for trial k is a function of the search's seed, k, and the trials before it: whenever the process dies, what
has ended stays, the trial under way goes on where its own state was saved, and later suggestions are those of an unbroken search.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convatlas.data.dataset import DataSet
from convatlas.errors import StorageError, UserError
from convatlas.records import codec, storage
from convatlas.records.findings import Tried, Tuned
from convatlas.records.naming import short_name
from convatlas.records.plan import Searched, StudyPlan, Tuning, Variant
from convatlas.records.run import Choices, EpochMetrics, Recipe, RunSummary, read_metrics
from convatlas.study.folder import tuned_path
from convatlas.study.search_space import apply_settings, apply_tuning, check_tuning, grid_values, kind_of, tuning_of
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.watch import Progress, Watch

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

__all__ = ["apply_tuning", "check_tuning", "tune_variant", "tuning_of"]
JOURNAL = "journal.log"
SEARCH = "search"
Hopeless = Callable[[dict[int, float]], bool]
"""Says of a trial's validation accuracies so far, by epoch, whether it is to be stopped."""


def tune_variant(folder: Path, plan: StudyPlan, variant: Variant, *, data: DataSet, watch: Watch) -> Tuned:
    """Search the settings of `variant` in the study's `folder`, or go on with that; what it came to is kept below `tuned/`.

    Raises UserError, also if no trial came to an end, and Stopped when the watcher asks for it.
    """
    tuning, path = plan.tuning, tuned_path(folder, variant.name)
    assert tuning is not None
    if path.exists():
        return codec.read(Tuned, path)
    check_tuning(tuning)
    if not len(data.val):
        raise UserError("there is no validation image to tune by", fix="Hold some out: `validation: 0.1` in the plan's recipe.")
    place = folder / "tune" / short_name(variant.name)
    with storage.explained(place):
        place.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
    with storage.held(place), _quiet():
        storage.sweep(path.parent, path.name)  # other searches may be writing theirs beside it
        search = _opened(place, tuning)
        while len(search.trials) < tuning.trials:
            _next_trial(search, place, variant.recipe, tuning, data=data, watch=watch)
        tuned = _outcome(search.trials, folder, place, variant.name, tuning)
        storage.write_text(path, codec.to_text(tuned))
    return tuned


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's messages: the faces say what there is to say."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _opened(place: Path, tuning: Tuning) -> "optuna.Study":
    """The search in the folder `place`, which is held. What a killed process left behind is mended: half a line, and a lock."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = place / JOURNAL
    storage.sweep(place)
    storage.remove(place / f"{JOURNAL}.lock")
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            storage.write_bytes(path, content[:whole])
    pruner = optuna.pruners.MedianPruner() if tuning.pruner == "median" else optuna.pruners.NopPruner()
    try:
        journal = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        return optuna.create_study(storage=journal, study_name=SEARCH, direction="maximize", pruner=pruner, load_if_exists=True)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged", fix="Put back the original, or remove its folder to search anew.") from error


def suggestion(history: "Sequence[FrozenTrial]", tuning: Tuning) -> dict[str, Any]:
    """The settings for the trial that follows those of `history`: a function of these and the search's seed alone."""
    import optuna

    scratch = optuna.create_study(direction="maximize", sampler=_sampler(tuning, len(history)))
    scratch.add_trials(history)
    return scratch.ask(_distributions(tuning)).params


def _texts(params: dict[str, Any]) -> dict[str, str]:
    """Settings as they are written: choices as in the plan, numbers with all their digits, so that they are read as the same."""
    return {name: value if isinstance(value, str) else repr(value) for name, value in params.items()}


def _sampler(tuning: Tuning, number: int) -> "BaseSampler":
    """Optuna's sampler, new for each trial, so that what it draws does not depend on what was drawn before it."""
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    if tuning.sampler == "grid":
        return GridSampler({each.setting: grid_values(each) for each in tuning.searched}, seed=tuning.seed % 2**32)
    digest = hashlib.blake2b(f"{tuning.seed}/{number}".encode(), digest_size=4).digest()
    seed = int.from_bytes(digest, "little")
    return TPESampler(seed=seed) if tuning.sampler == "tpe" else RandomSampler(seed=seed)


def _distributions(tuning: Tuning) -> "dict[str, BaseDistribution]":
    return {each.setting: _distribution(each) for each in tuning.searched}


def _distribution(each: Searched) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if each.choices:
        return CategoricalDistribution(each.choices)
    assert each.low is not None and each.high is not None
    if kind_of(each.setting) is int:
        return IntDistribution(int(each.low), int(each.high), log=each.log)
    return FloatDistribution(each.low, each.high, log=each.log)


def _next_trial(search: "optuna.Study", place: Path, recipe: Recipe, tuning: Tuning, *, data: DataSet, watch: Watch) -> None:
    """Make the run of the trial that follows those that have ended, or go on with it, and keep how it ended."""
    from optuna.trial import TrialState, create_trial

    run = place / _name(len(search.trials))
    params = suggestion(search.trials, tuning)
    told = _Told(watch, run, tuning.epochs, lambda values: _hopeless(search, values))
    ended = _made(run, trial_recipe(recipe, _texts(params), tuning), told, data=data)
    search.add_trial(
        create_trial(
            # For Optuna a trial that failed is one that was pruned before it had any value: the worst there is.
            state=TrialState.PRUNED if ended.value is None else TrialState.COMPLETE,
            value=ended.value,
            params=params,
            distributions=_distributions(tuning),
            intermediate_values={} if ended.outcome == "failed" else told.values,
            user_attrs={"outcome": ended.outcome, "epochs": max(told.values, default=0), "cause": ended.cause},
        )
    )


def _name(number: int) -> str:
    return f"trial-{number:03}"


def trial_recipe(recipe: Recipe, settings: dict[str, str], tuning: Tuning) -> Recipe:
    """What a trial trains: the variant's recipe with the settings tried, shortened. The test split is never looked at."""
    short = replace(recipe, epochs=tuning.epochs, minutes=None, seed=tuning.seed, gradients=False, test_each_epoch=False)
    return apply_settings(short, settings)


def _hopeless(search: "optuna.Study", values: dict[int, float]) -> bool:
    """What the pruner says of a trial with these accuracies, by those that have finished."""
    from optuna.trial import TrialState, create_trial

    return search.pruner.prune(search, create_trial(state=TrialState.RUNNING, intermediate_values=values))


class _Told:
    """Passes on what a run says to the study's watcher, keeps its accuracies, and asks it to stop once it is hopeless.

    `values` are the validation accuracies by epoch, those of an earlier process included.
    """

    def __init__(self, watch: Watch, run: Path, epochs: int, hopeless: Hopeless) -> None:
        self.watch, self.epochs, self.hopeless = watch, epochs, hopeless
        self.values: dict[int, float] = {}
        self.pruned = False
        for metrics in read_metrics(run / "metrics.jsonl"):
            self._hear(metrics)

    def _hear(self, metrics: EpochMetrics) -> None:
        assert metrics.val_accuracy is not None
        self.values[metrics.epoch] = metrics.val_accuracy
        so_far = {epoch: value for epoch, value in self.values.items() if epoch <= metrics.epoch}
        self.pruned = metrics.epoch < self.epochs and self.hopeless(so_far)

    def step(self, progress: Progress) -> None:
        """Passed on."""
        self.watch.step(progress)

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """Passed on, and judged."""
        self._hear(metrics)
        self.watch.epoch(progress, metrics)

    def note(self, text: str) -> None:
        """Passed on."""
        self.watch.note(text)

    def trying(self, what: str, done: int, total: int) -> None:
        """Passed on."""
        self.watch.trying(what, done, total)

    def computing(self, what: str, done: int, total: int) -> None:
        """Passed on."""
        self.watch.computing(what, done, total)

    def chosen(self, choices: Choices) -> None:
        """Passed on."""
        self.watch.chosen(choices)

    def stopping(self) -> bool:
        """Whether the trial is hopeless, or the study is to stop."""
        return self.pruned or self.watch.stopping()


@dataclass(frozen=True)
class _Ended:
    """How a trial's run ended: "finished" with an accuracy, "pruned", or "failed" for a cause."""

    outcome: str
    value: float | None = None
    cause: str | None = None


def _made(run: Path, recipe: Recipe, told: _Told, *, data: DataSet) -> _Ended:
    """Make the trial's run, or what is left of it."""
    before = _begun(run, recipe)
    if told.pruned:  # and the process died before that was kept
        return _Ended("pruned")
    try:
        if before is None:
            train(recipe, run, data=data, watch=told)
        elif before.status in ("running", "interrupted"):
            resume(run, data=data, watch=told)
    except Stopped:
        if not told.pruned:
            raise
        return _Ended("pruned")
    except UserError as error:
        failed = (run / "summary.json").exists() and codec.read(RunSummary, run / "summary.json").status == "failed"
        if isinstance(error, StorageError) or not failed:
            raise
    summary = codec.read(RunSummary, run / "summary.json")
    finished = summary.status == "finished"
    return _Ended("finished", value=summary.val_accuracy) if finished else _Ended("failed", cause=summary.cause)


def _begun(run: Path, recipe: Recipe) -> RunSummary | None:
    """How far the trial's run is; None if it has not begun. What died before it had a summary has trained nothing, and goes."""
    if not (run / "summary.json").exists():
        if run.exists():
            with storage.explained(run):
                shutil.rmtree(run)
        return None
    if codec.read(Recipe, run / "recipe.json") != recipe:
        what = f"{run} was begun with other settings than are suggested now"
        raise UserError(what, fix="Use the version of Optuna that it began with, or remove the folder.")
    return codec.read(RunSummary, run / "summary.json")


def _outcome(trials: "Sequence[FrozenTrial]", folder: Path, place: Path, variant: str, tuning: Tuning) -> Tuned:
    """The settings of the best trial that finished; the first one of equals."""
    tried = [_tried(trial, place.relative_to(folder) / _name(trial.number)) for trial in trials]
    finished = [(each.val_accuracy, each) for each in tried if each.outcome == "finished" and each.val_accuracy is not None]
    if not finished:
        causes = [each.cause for each in tried if each.cause]
        what = f"no trial for {variant} came to its end" + (f": {causes[-1]}" if causes else "")
        raise UserError(what, fix="Search lower learning rates, in a new study.")
    accuracy, best = max(finished, key=lambda pair: pair[0])
    return Tuned(variant, tuning.trials, best.settings, accuracy, tuple(tried))


def _tried(trial: "FrozenTrial", run: Path) -> Tried:
    known, values = trial.user_attrs, trial.intermediate_values
    return Tried(
        run=run.as_posix(),
        settings=_texts(trial.params),
        outcome=str(known["outcome"]),
        epochs=int(known["epochs"]),
        val_accuracy=values[max(values)] if trial.value is None and values else trial.value,
        cause=known["cause"],
    )
