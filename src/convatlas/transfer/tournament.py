"""The tournament: strategies compete under one budget, the better half goes on with twice as much, the winner is refitted.

Successive halving (Jamieson & Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
section 2) over folds of the training and validation images. The test images are looked at once, by the winner's last training.
What is done is on disk: a tournament that was cut off goes on with the trial that was under way.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from convatlas.arith.proportion import wilson
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.splits import folds_of
from convatlas.errors import InUseError, StorageError, UserError
from convatlas.records import codec, storage
from convatlas.records.run import ModelConfig, Recipe, RunSummary, read_metrics
from convatlas.records.study import Interval
from convatlas.records.tournament import BASELINE, PLAN, RESULT, TRIALS, WINNER, Standing, Tournament, TournamentPlan, Trial
from convatlas.records.tuning import Receipt
from convatlas.training.apply import judge_once
from convatlas.training.checkpoint import drop_states, drop_weights
from convatlas.training.loop import resume, train
from convatlas.training.outcome import heeding
from convatlas.training.watch import Watch
from convatlas.transfer.advice import advice_of
from convatlas.transfer.known import CACHED_EPOCHS
from convatlas.transfer.rounds import Rung, check_minutes, finalist_minutes, rounds_of, strategy_of, trials_of
from convatlas.transfer.statistics import accuracy_over_folds, difference_over_folds
from convatlas.transfer.tuning import RECEIPT, method_of

FEW_PASSES, WANTED_PASSES = 3, 5
"""A finalist that passes fewer times over its images is told of; the minutes are named with which it would pass so often."""


class TournamentWatch(Watch, Protocol):
    """Who is told of each trial's outcome too."""

    def run_done(self, text: str) -> None:
        """The outcome of a trial, in a line."""


def begin(plan: TournamentPlan, folder: Path, data: DataSet | None = None) -> None:
    """Make the tournament's new folder. Raises UserError for a plan that cannot be, as far as can be told with the `data`."""
    names = [strategy_of(recipe) for recipe in plan.recipes]
    if len(names) < 2:
        raise UserError("a tournament needs two strategies or more", fix="Leave --strategies out: all compete then.")
    if any(recipe.schedule == "plateau" for recipe in plan.recipes):
        what = "the winner is trained anew on all images, without any by which to tell a plateau"
        raise UserError(what, fix="Give another --schedule.")
    if plan.minutes is not None:
        check_minutes(plan)
    if data is not None:
        folds_of(joined(data.train, data.val).labels.tolist(), folds=plan.folds, seed=plan.seed)
    with storage.beginning(folder):
        storage.write_text(folder / PLAN, codec.to_text(plan))
        (folder / TRIALS).mkdir()


def run_tournament(folder: Path, *, data: DataSet, watch: TournamentWatch) -> Tournament:
    """Run what is left of the tournament in `folder`, to its result. Raises UserError, and Stopped if the watcher asks for it."""
    plan = codec.read(TournamentPlan, folder / PLAN)
    if data.fingerprint != plan.recipes[0].data_fingerprint:
        raise UserError(f"{folder} was begun with other data", fix="Put the images back as they were, or begin anew.")
    if not (folder / RESULT).exists():
        _check_weights(plan, data)
    with storage.held(folder):
        contest = _Contest(plan, folder, data, watch)
        rungs = rounds_of(plan)
        reached = contest.play(rungs)
        result = contest.result(rungs, reached)
        storage.write_text(folder / RESULT, codec.to_text(result))
    return result


def _check_weights(plan: TournamentPlan, data: DataSet) -> None:
    """Raise a UserError if the weights are gone or changed: no strategy is to be out for that."""
    recipe = next((recipe for recipe in plan.recipes if recipe.tuning is not None and recipe.tuning.weights is not None), None)
    if recipe is not None:
        with torch.random.fork_rng(devices=[]):
            method_of(recipe, data).network(recipe, data)


class _Contest:
    """A tournament under way."""

    def __init__(self, plan: TournamentPlan, folder: Path, data: DataSet, watch: TournamentWatch) -> None:
        self.plan, self.folder, self.data, self.watch = plan, folder, data, watch
        self.pool = joined(data.train, data.val)
        self.parts = folds_of(self.pool.labels.tolist(), folds=plan.folds, seed=plan.seed)
        self.trials: list[Trial] = []
        self.haste: str | None = None
        self.minutes = None if plan.minutes is None else finalist_minutes(plan)

    def play(self, rungs: Sequence[Rung]) -> list[list[str]]:
        """The rounds; the strategies that took part in each, best of the rung before first."""
        names = [strategy_of(recipe) for recipe in self.plan.recipes if strategy_of(recipe) != BASELINE]
        baseline = [BASELINE] if any(strategy_of(recipe) == BASELINE for recipe in self.plan.recipes) else []
        reached = []
        for number, rung in enumerate(rungs, start=1):
            self.see_clock(number)
            names = names[: rung.strategies]
            reached.append([*names, *baseline])
            # Fold by fold, so that a machine that grows slow does so for all.
            for fold, seed in self.draws(rung.trials):
                for name in reached[-1]:
                    self.trials.append(self.trial(name, rungs, number, fold=fold, seed=seed))
            names = self.ranked(number, names)
        return reached

    def draws(self, trials: int) -> Iterator[tuple[int, int]]:
        """Fold and seed of each trial: every one has another seed, and folds come in turn."""
        for i in range(trials):
            yield i % self.plan.folds, self.plan.seed + i

    def ranked(self, rung: int, names: Sequence[str]) -> list[str]:
        """The strategies by mean accuracy in this round, then by loss; those without a finished trial are out."""
        scores = {name: self.of(name, rung) for name in names}
        able = [name for name in names if scores[name]]
        if not able:
            causes = [trial.cause for trial in self.trials if trial.cause is not None]
            raise UserError(f"no strategy could be trained: {causes[-1]}", fix="See whether one of them trains by itself.")
        return sorted(able, key=lambda name: (-_mean(t.accuracy for t in scores[name]), _mean(t.loss for t in scores[name])))

    def of(self, name: str, rung: int) -> list[Trial]:
        """The finished trials of a strategy in a round."""
        return [t for t in self.trials if t.strategy == name and t.rung == rung and t.accuracy is not None]

    def recipe(self, name: str) -> Recipe:
        """The recipe of a finalist."""
        return next(recipe for recipe in self.plan.recipes if strategy_of(recipe) == name)

    def see_clock(self, rung: int) -> None:
        """Before round `rung`: take from a finalist's minutes what trainings took beyond theirs, as the features of probes do."""
        if self.plan.minutes is not None:
            self.minutes = finalist_minutes(self.plan, rung=rung, seconds=sum(trial.seconds for trial in self.trials))

    def budgeted(self, name: str, share: float) -> Recipe:
        """The recipe with its part of the budget. On cached features epochs cost seconds, and there are enough in any case."""
        recipe = self.recipe(name)
        cached = recipe.tuning is not None and recipe.tuning.cached
        if self.plan.epochs is not None:
            epochs = max(1, round(self.plan.epochs * share))
            return replace(recipe, epochs=max(epochs, CACHED_EPOCHS) if cached else epochs, minutes=None)
        if cached:
            return replace(recipe, epochs=CACHED_EPOCHS, minutes=None)
        assert self.minutes is not None
        return replace(recipe, epochs=None, minutes=share * self.minutes)

    def trial(self, name: str, rungs: Sequence[Rung], rung: int, *, fold: int, seed: int) -> Trial:
        """One training, from where it was left; one that cannot be trained is out, with its cause."""
        folder = self.folder / TRIALS / f"{name}-{rung}-{fold}-{seed}"
        data = self.split(fold)
        recipe = replace(self.budgeted(name, rungs[rung - 1].share), seed=seed)
        recipe = replace(recipe, batch_size=max(2, min(recipe.batch_size, len(data.train))))
        cause = None
        try:
            _to_the_end(recipe, folder, data, self.watch)
            drop_states(folder)
        except (StorageError, InUseError):
            raise  # no fault of the strategy's
        except UserError as error:
            cause = str(error)
        trial = _told(name, rung, fold, seed, folder, n=len(data.val), cause=cause)
        said = f"{trial.accuracy:.1%} of {trial.n} images" if trial.accuracy is not None else f"failed: {cause}"
        place = f"{len(self.trials) + 1} of {trials_of(rungs, self.plan)}"
        self.watch.run_done(f"{place}: round {rung} of {len(rungs)}, {name}, fold {fold + 1}: {said}, {trial.seconds:.0f} s")
        if recipe.minutes is not None and cause is None:
            self.see_haste(name, folder, n=len(data.train), share=rungs[rung - 1].share)
        return trial

    def see_haste(self, name: str, folder: Path, *, n: int, share: float) -> None:
        """Say once if minutes are so few that a finalist hardly sees its images, and how many would do."""
        metrics = read_metrics(folder / "metrics.jsonl")
        passes = metrics[-1].images_seen / n / share if metrics else 0.0
        if self.haste is not None or not 0 < passes < FEW_PASSES:
            return
        assert self.plan.minutes is not None
        minutes = self.plan.minutes * WANTED_PASSES / passes
        self.haste = (
            f"Too little time for these images on this machine: in {self.plan.minutes:g} minutes a finalist ({name}) passes over "
            f"them {passes:.1f} times; with --minutes {math.ceil(minutes)} that would be {WANTED_PASSES}."
        )
        self.watch.note(f"note: {self.haste}")

    def split(self, fold: int) -> DataSet:
        """The data whose validation images are this fold's, and the others its training images."""
        held = self.parts[fold]
        kept = [i for number, part in enumerate(self.parts) if number != fold for i in part]
        return self.parted(sorted(kept), held)

    def parted(self, train: Sequence[int], val: Sequence[int]) -> DataSet:
        """The data with these images of the pool to train on, and those for validation; their names are parted likewise."""
        split = self.data.split
        if split is not None:
            names = (*split["train"], *split["val"])
            split = split | {"train": tuple(names[i] for i in train), "val": tuple(names[i] for i in val)}
        return replace(self.data, train=self.pool.subset(train), val=self.pool.subset(val), split=split)

    def result(self, rungs: Sequence[Rung], reached: Sequence[Sequence[str]]) -> Tournament:
        """The standings, the winner trained on all images, its look at the test images, and the advice."""
        last = len(rungs)
        order = self.ranked(last, list(reached[-1]))
        winner = order[0]
        self.see_clock(last + 1)
        self.refit(winner, rungs)
        for trial in self.trials:
            if trial.rung < last:
                drop_weights(self.folder / trial.folder)
        standings = tuple(self.standing(name, reached, winner) for name in self.in_order(reached, order))
        summary = codec.read(RunSummary, self.folder / WINNER / "summary.json")
        return Tournament(
            model=summary.model,
            weights=next((r.tuning.weights for r in self.plan.recipes if r.tuning is not None and r.tuning.weights), None),
            data=self.data.description,
            classes=self.data.classes,
            image_size=self.data.image_size,
            n_images=len(self.pool),
            n_test=len(self.data.test),
            folds=self.plan.folds,
            rungs=tuple(tuple(names) for names in reached),
            standings=standings,
            trials=tuple(self.trials),
            winner=winner,
            advice=self.advice(standings, winner),
            test=_test_interval(summary),
            test_looks=summary.test_looks,
            seconds=sum(trial.seconds for trial in self.trials) + summary.train_seconds,
        )

    def advice(self, standings: Sequence[Standing], winner: str) -> tuple[str, ...]:
        """What the standings mean, who is not in them, and whether there was time enough."""
        failed = {trial.strategy: trial.cause for trial in reversed(self.trials) if trial.cause is not None}
        out = [name for name in failed if all(each.strategy != name for each in standings)]
        said = [f"{name} could not be trained: {failed[name]}" for name in sorted(out)]
        return (*advice_of(standings, winner, n_images=len(self.pool)), *said, *([self.haste] if self.haste else []))

    def in_order(self, reached: Sequence[Sequence[str]], finalists: Sequence[str]) -> list[str]:
        """All strategies that finished a trial, best first: finalists, then those that were out later before the others."""
        order = list(finalists)
        for number in range(len(reached), 0, -1):
            able = [name for name in reached[number - 1] if self.of(name, number) and name not in order]
            order += self.ranked(number, able) if able else []
        return order

    def standing(self, name: str, reached: Sequence[Sequence[str]], winner: str) -> Standing:
        """How one strategy did in the last round that it finished."""
        rung = max(number for number in range(1, len(reached) + 1) if self.of(name, number))
        own = self.of(name, rung)
        n_images = min(sum(t.n for t in own), len(self.pool))
        return Standing(
            strategy=name,
            rung=rung,
            trials=len(own),
            accuracy=accuracy_over_folds([t.accuracy or 0.0 for t in own], folds=self.plan.folds, n_images=n_images),
            loss=_mean(t.loss for t in own),
            difference=self.difference(winner, name, rung),
            seconds=_mean(t.seconds for t in own),
            total_seconds=sum(t.seconds for t in self.trials if t.strategy == name),
            trained=own[-1].trained,
            winner_seconds=self.winner_seconds(winner, name, rung),
        )

    def difference(self, winner: str, name: str, rung: int) -> Interval | None:
        """The winner's accuracy minus this one's, over the folds and seeds that both were trained with in that round."""
        pairs = self.pairs(winner, name, rung)
        if name == winner or len(pairs) < 2:
            return None
        first, second = ([trial.accuracy or 0.0 for trial in own] for own in zip(*pairs, strict=True))
        n_images = min(sum(trial.n for trial, _ in pairs), len(self.pool))
        return difference_over_folds(first, second, folds=self.plan.folds, n_images=n_images)

    def winner_seconds(self, winner: str, name: str, rung: int) -> float | None:
        """The winner's mean seconds of a training in that round, over the same folds and seeds."""
        pairs = self.pairs(winner, name, rung)
        return _mean(trial.seconds for trial, _ in pairs) if pairs else None

    def pairs(self, winner: str, name: str, rung: int) -> list[tuple[Trial, Trial]]:
        """The trainings of both in that round by the same fold and seed."""
        first, second = ({(t.fold, t.seed): t for t in self.of(each, rung)} for each in (winner, name))
        return [(first[key], second[key]) for key in sorted(first.keys() & second.keys())]

    def refit(self, winner: str, rungs: Sequence[Rung]) -> None:
        """Train the winner on all images but the test images, and look at those once."""
        recipe = replace(self.budgeted(winner, 1.0), seed=self.plan.seed, patience=0, validation=0.0)
        final = self.of(winner, len(rungs))
        if self.recipe(winner).patience and recipe.epochs is not None:
            recipe = replace(recipe, epochs=max(1, round(_mean(t.epochs for t in final))))
        data = self.parted(range(len(self.pool)), ())
        folder = self.folder / WINNER
        _to_the_end(recipe, folder, data, self.watch, temperature=_typical_temperature(self.folder, final))
        if len(self.data.test):
            judge_once(folder, data=data, progress=heeding(self.watch))


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """The images of both, the first ones first."""
    return ImageSet(torch.cat([first.images, second.images]), torch.cat([first.labels, second.labels]))


def _mean(values: Iterator[float | None] | Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _to_the_end(recipe: Recipe, folder: Path, data: DataSet, watch: Watch, *, temperature: float | None = None) -> None:
    """Train the recipe in `folder`, or go on with what was begun there; a finished run stays as it is."""
    method = method_of(recipe, data, temperature=temperature)
    summary = folder / "summary.json"
    if summary.exists() and codec.read(RunSummary, summary).status == "finished":
        return
    if (folder / "recipe.json").exists():
        resume(folder, data=data, watch=watch, method=method)
    else:
        storage.clear_unbegun(folder)
        train(recipe, folder, data=data, watch=watch, method=method)


def _told(name: str, rung: int, fold: int, seed: int, folder: Path, *, n: int, cause: str | None) -> Trial:
    """What a trial's folder says of it."""
    metrics = read_metrics(folder / "metrics.jsonl")
    best = codec.read(RunSummary, folder / "summary.json").best_epoch if cause is None else None
    last = next((m for m in metrics if m.epoch == best), metrics[-1] if metrics else None)
    receipt = codec.read(Receipt, folder / RECEIPT) if (folder / RECEIPT).exists() else None
    failed = cause is not None or last is None
    return Trial(
        strategy=name,
        rung=rung,
        fold=fold,
        seed=seed,
        folder=f"{TRIALS}/{folder.name}",
        epochs=last.epoch if last is not None else 0,
        seconds=metrics[-1].seconds if metrics else 0.0,
        n=n,
        trained=receipt.phases[-1].trained_parameters if receipt is not None and receipt.phases else 0,
        accuracy=None if failed or last is None else last.val_accuracy,
        loss=None if failed or last is None else last.val_loss,
        cause=cause,
    )


def _typical_temperature(folder: Path, finals: Sequence[Trial]) -> float:
    """The geometric mean of the temperatures that fitted the winner's folds: the last training has no images to fit it on."""
    logs = [math.log(_temperature(folder / trial.folder)) for trial in finals]
    return math.exp(sum(logs) / len(logs))


def _temperature(folder: Path) -> float:
    return codec.read(ModelConfig, folder / "config.json").temperature


def _test_interval(summary: RunSummary) -> Interval | None:
    if summary.test_accuracy is None:
        return None
    low, high = wilson(summary.test_accuracy, summary.n_test)
    return Interval(summary.test_accuracy, low, high, summary.n_test, "Wilson score over the test images")
