"""The tournament: its rounds, folds and intervals, and a whole small one, also cut off, with a failure, and on other data."""

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
import torch
from scipy import stats

from convatlas.arith.proportion import wilson
from convatlas.data.dataset import ImageSet
from convatlas.data.splits import folds_of
from convatlas.errors import InUseError, StorageError, UserError
from convatlas.records import codec, storage
from convatlas.records.errors_look import ErrorReport
from convatlas.records.run import EpochMetrics, ModelConfig, Recipe, RunSummary, read_metrics
from convatlas.records.tournament import PLAN, RESULT, TRIALS, WINNER, Tournament, TournamentPlan, Trial
from convatlas.training.outcome import Stopped, heeding
from convatlas.training.watch import Unwatched
from convatlas.transfer import tournament
from convatlas.transfer.result import ERRORS, complete
from convatlas.transfer.rounds import LEAST_SECONDS, finalist_minutes, rungs_of
from convatlas.transfer.statistics import accuracy_over_folds, difference_over_folds, over_folds
from convatlas.transfer.tournament import begin, run_tournament

from ..training.makers import StopAfter
from .makers import photographs, prepared, same, tensors, tune, weights_file

# ---------------------------------------------------------------- folds, rounds, intervals


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_hold_each_image_once_and_each_class_alike(folds):
    labels = [0] * 20 + [1] * 11 + [2] * 7
    parts = folds_of(labels, folds=folds, seed=3)
    assert sorted(i for part in parts for i in part) == list(range(len(labels)))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for label in (0, 1, 2):
        counts = [sum(labels[i] == label for i in part) for part in parts]
        assert max(counts) - min(counts) <= 1
    assert parts == folds_of(labels, folds=folds, seed=3)
    assert parts != folds_of(labels, folds=folds, seed=4)


def test_more_folds_than_a_class_has_images_are_refused():
    with pytest.raises(UserError, match="3 folds, and a class of 2 images. Give --folds 2 to 2"):
        folds_of([0, 0, 0, 1, 1], folds=3, seed=0)
    with pytest.raises(UserError, match="2 folds, and a class of 1 image. Add images of that class"):
        folds_of([0, 0, 0, 1], folds=2, seed=0)
    with pytest.raises(UserError, match="1 folds"):
        folds_of([0, 0, 1, 1], folds=1, seed=0)


@pytest.mark.parametrize(
    ("strategies", "sizes"),
    [
        (1, [1]),
        (2, [2]),
        (3, [3, 2]),
        (4, [4, 2]),
        (5, [5, 3, 2]),
        (6, [6, 3, 2]),
        (7, [7, 4, 2]),
        (8, [8, 4, 2]),
        (9, [9, 5, 3, 2]),
    ],
)
def test_the_better_half_goes_on_with_twice_the_budget(strategies, sizes):
    rungs = rungs_of(strategies, 3)
    assert [rung.strategies for rung in rungs] == sizes
    assert [rung.share for rung in rungs] == [0.5**i for i in reversed(range(len(rungs)))]
    assert [rung.trials for rung in rungs] == [*range(1, len(rungs)), 3][: len(rungs)] if len(rungs) <= 3 else True
    assert rungs[-1].trials == 3
    assert all(rung.trials <= 3 for rung in rungs)


def test_one_final_means_one_training_in_every_round():
    assert [rung.trials for rung in rungs_of(9, 1)] == [1, 1, 1, 1]


def test_the_interval_is_nadeaus_and_bengios_by_hand():
    values = [0.80, 0.85, 0.90]
    # The mean is 0.85, the variance (0.0025 + 0 + 0.0025) / 2 = 0.0025; with three folds 1/3 + 1/2 = 5/6.
    half = 4.302652729911275 * math.sqrt(0.0025 * 5 / 6)
    found = over_folds(values, folds=3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.85, 0.85 - half, 0.85 + half))
    assert found.n == 3 and "corrected t" in found.method
    naive = stats.t.interval(0.95, 2, loc=0.85, scale=math.sqrt(0.0025 / 3))
    assert found.high - found.low > naive[1] - naive[0], "wider than if folds were independent"
    cut = over_folds(values, folds=3, limits=(0.0, 1.0))
    assert cut.high == min(1.0, 0.85 + half)


def test_more_folds_share_more_images_and_correct_less():
    values = [0.8, 0.85, 0.9, 0.8, 0.85]
    widths = [over_folds(values, folds=folds).high for folds in (2, 3, 5, 10)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7]])
def test_without_spread_there_is_no_interval_over_folds_and_wilsons_over_images(values):
    found = over_folds(values, folds=3)
    assert (found.low, found.mean, found.high) == pytest.approx((0.7, 0.7, 0.7))
    assert found.method.endswith("no interval")
    shown = accuracy_over_folds(values, folds=3, n_images=50)
    assert (shown.low, shown.high) == pytest.approx(wilson(0.7, 50))
    assert "Wilson" in shown.method and "no interval" not in shown.method


def test_a_perfect_score_is_not_certain():
    found = accuracy_over_folds([1.0, 1.0], folds=2, n_images=20)
    assert found.low < 0.9 and found.high == 1.0


@pytest.mark.parametrize(("first", "second"), [([0.80, 0.72], [0.67, 0.59]), ([0.80, 0.721], [0.67, 0.59]), ([0.8], [0.67])])
def test_differences_that_agree_by_chance_are_no_proof(first, second):
    """Two trainings on 40 images each that differ by the same amount say no more than 40 images can."""
    found = difference_over_folds(first, second, folds=2, n_images=40)
    assert found.low < 0 < found.mean < found.high
    assert "Newcombe" in found.method and "no interval" not in found.method


def test_a_wide_spread_over_folds_stays_as_wide():
    first, second = [0.95, 0.70, 0.90], [0.60, 0.65, 0.55]
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    assert difference_over_folds(first, second, folds=3, n_images=1000) == over_folds(gaps, folds=3, limits=(-1.0, 1.0))


# ---------------------------------------------------------------- whole tournaments


class Watching(StopAfter):
    """Hears the outcomes; stops when `stop_after` steps are done."""

    def __init__(self, steps=10**9):
        super().__init__(steps)
        self.outcomes = []

    def run_done(self, text):
        self.outcomes.append(text)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights") / "pretrained.safetensors", "lenet.pocket")


def contest(weights, *names, data=None, plan=None, changed=None, **settings):
    """A plan for these strategies, and its data."""
    recipes = []
    for name in names:
        more = {"cached": True, "policy": "none"} if name == "probe" else {}
        own = {"epochs": 2, **settings, **(changed or {}).get(name, {})}
        recipe, images = prepared(name, weights, data, model="lenet.pocket", settings=own, **more)
        recipes.append(recipe)
    made = TournamentPlan(
        place="pictures", recipes=tuple(recipes), epochs=2, minutes=None, folds=2, finals=2, seed=0, validation=0.15,
        skip_unreadable=False,
    )  # fmt: skip
    return replace(made, **(plan or {})), images


WILD = {"lr": 1e6, "classifier_lr": 1e6, "optimizer": "sgd", "clip_grad": 0.0, "warmup": 0.0}
NAMES = ("probe", "full", "bn-bias", "scratch")


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory):
    plan, data = contest(weights, *NAMES)
    folder = tmp_path_factory.mktemp("tournament") / "t"
    begin(plan, folder)
    watch = Watching()
    return folder, run_tournament(folder, data=data, watch=watch), watch, data


def test_a_tournament_has_rounds_standings_and_a_winner(whole):
    folder, result, watch, data = whole
    assert codec.read(Tournament, folder / RESULT) == result
    assert [len(names) for names in result.rungs] == [4, 3], "probe, full and bn-bias, then two of them; scratch is in both"
    assert all("scratch" in names for names in result.rungs)
    assert len(result.trials) == 4 * 1 + 3 * 2 == len(watch.outcomes)
    assert {each.strategy for each in result.standings} == set(NAMES)
    assert result.standings[0].strategy == result.winner
    finalists = [each for each in result.standings if each.rung == 2]
    assert [each.accuracy.mean for each in finalists] == sorted((each.accuracy.mean for each in finalists), reverse=True)
    assert (result.n_images, result.n_test, result.folds) == (72, 12, 2)
    assert result.weights == codec.read(TournamentPlan, folder / PLAN).recipes[0].tuning.weights
    assert result.classes == data.classes
    assert result.advice[0].startswith(f"Take {result.winner}: ")


def test_a_result_of_an_earlier_version_is_read(whole):
    """It did not say how long the winner trained in the round of another."""
    folder, result, *_ = whole
    kept = json.loads((folder / RESULT).read_text())
    for each in kept["standings"]:
        del each["winner_seconds"]
    found = codec.from_text(Tournament, json.dumps(kept), where=RESULT)
    assert found == replace(result, standings=tuple(replace(each, winner_seconds=None) for each in result.standings))


def test_standings_are_what_the_trials_come_to(whole):
    _, result, *_ = whole
    best = {(t.fold, t.seed): t.accuracy for t in result.trials if t.strategy == result.winner and t.rung == 2}
    for each in result.standings:
        own = [t for t in result.trials if t.strategy == each.strategy and t.rung == each.rung]
        assert each.trials == len(own)
        assert each.accuracy.mean == pytest.approx(sum(t.accuracy for t in own) / len(own))
        assert each.total_seconds == pytest.approx(sum(t.seconds for t in result.trials if t.strategy == each.strategy))
        if each.strategy == result.winner:
            assert each.difference is None
        elif each.rung == 2:
            gaps = [best[t.fold, t.seed] - t.accuracy for t in own]
            assert each.difference.mean == pytest.approx(sum(gaps) / len(gaps))
        assert each.trained > 0
    own = {(t.strategy, t.rung, t.fold, t.seed): t.seconds for t in result.trials}
    for each in result.standings:
        draws = [(t.fold, t.seed) for t in result.trials if (t.strategy, t.rung) == (each.strategy, each.rung)]
        wanted = sum(own[result.winner, each.rung, *draw] for draw in draws) / len(draws)
        assert each.winner_seconds == pytest.approx(wanted)
    classifier = 84 * 6 + 6
    assert next(each.trained for each in result.standings if each.strategy == "probe") == classifier


def test_each_trial_is_judged_on_images_that_it_was_not_trained_on(whole):
    folder, result, *_ = whole
    for trial in result.trials:
        summary = codec.read(RunSummary, folder / trial.folder / "summary.json")
        assert summary.n_train + summary.n_val == 72
        assert summary.n_val == trial.n == 36
        last = read_metrics(folder / trial.folder / "metrics.jsonl")[-1]
        assert (trial.accuracy, trial.loss) == (last.val_accuracy, last.val_loss)
        assert summary.test_looks == 0, "nothing is chosen by the test images"
    drawn = {(t.rung, t.fold, t.seed) for t in result.trials}
    assert drawn == {(1, 0, 0), (2, 0, 0), (2, 1, 1)}


def test_the_winner_is_trained_on_all_images_and_looks_at_test_once(whole):
    folder, result, *_ = whole
    summary = codec.read(RunSummary, folder / WINNER / "summary.json")
    assert (summary.n_train, summary.n_val, summary.n_test) == (72, 0, 12)
    assert summary.test_looks == result.test_looks == 1
    assert len((folder / WINNER / "test_looks.jsonl").read_text().splitlines()) == 1
    assert result.test.mean == summary.test_accuracy
    assert (result.test.low, result.test.high) == pytest.approx(wilson(summary.test_accuracy, 12))
    config = codec.read(ModelConfig, folder / WINNER / "config.json")
    finals = [t for t in result.trials if t.strategy == result.winner and t.rung == 2]
    logs = [math.log(codec.read(ModelConfig, folder / t.folder / "config.json").temperature) for t in finals]
    assert config.temperature == pytest.approx(math.exp(sum(logs) / len(logs)))


def test_a_finished_tournament_comes_to_the_same_without_training(whole, monkeypatch):
    folder, result, _, data = whole

    def nothing(*args, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(tournament, "train", nothing)
    monkeypatch.setattr(tournament, "resume", nothing)
    again = run_tournament(folder, data=data, watch=Watching())
    assert again == result
    assert codec.read(RunSummary, folder / WINNER / "summary.json").test_looks == 1


@pytest.mark.untraced
@pytest.mark.parametrize("steps", [1, 64, 70, 80, 100, 120])
def test_cut_off_it_goes_on_to_the_same_result(whole, weights, tmp_path, monkeypatch, steps):
    plan, data = contest(weights, *NAMES)
    begin(plan, tmp_path / "t")
    trained = []
    own = tournament.train
    monkeypatch.setattr(
        tournament, "train", lambda recipe, folder, **more: (trained.append(folder.name), own(recipe, folder, **more))[1]
    )
    times = 0
    try:
        run_tournament(tmp_path / "t", data=data, watch=Watching(steps))
    except Stopped:
        times += 1
        assert not (tmp_path / "t" / RESULT).exists()
        found = run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert times == 1, "it was to be cut off"
    assert len(trained) == len(set(trained)) == 11, "no trial was begun twice"
    expected = whole[1]
    untimed = {"seconds": 0.0, "total_seconds": 0.0, "winner_seconds": 0.0}
    assert [replace(each, **untimed) for each in found.standings] == [replace(each, **untimed) for each in expected.standings]
    assert [replace(each, seconds=0.0) for each in found.trials] == [replace(each, seconds=0.0) for each in expected.trials]
    assert (found.winner, found.test, found.test_looks) == (expected.winner, expected.test, 1)
    assert same(tensors(tmp_path / "t" / WINNER), tensors(whole[0] / WINNER))


def test_a_strategy_that_fails_is_out_with_its_cause_and_the_rest_goes_on(weights, tmp_path):
    wild = {"full": WILD}
    plan, data = contest(weights, "probe", "full", "bn-bias", "scratch", changed=wild, plan={"epochs": 8})
    begin(plan, tmp_path / "t")
    watch = Watching()
    result = run_tournament(tmp_path / "t", data=data, watch=watch)
    failed = [trial for trial in result.trials if trial.cause is not None]
    assert {trial.strategy for trial in failed} == {"full"}
    assert len(failed) == 1, "it is out after its first round"
    assert failed[0].accuracy is None and "the loss became" in failed[0].cause
    assert "full" not in {each.strategy for each in result.standings} | set(result.rungs[1])
    assert {"probe", "bn-bias", "scratch"} == {each.strategy for each in result.standings}
    assert any("full" in line and "failed: the loss became" in line for line in watch.outcomes)
    again = run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert [t.cause is None for t in again.trials] == [t.cause is None for t in result.trials]
    assert again.winner == result.winner


def test_if_all_fail_the_cause_is_told_in_a_line(weights, tmp_path):
    plan, data = contest(weights, "full", "bn-bias", **WILD)
    begin(plan, tmp_path / "t")
    with pytest.raises(UserError, match="no strategy could be trained: the loss became") as caught:
        run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert "\n" not in str(caught.value)


def test_other_data_are_refused(whole):
    folder, _, _, data = whole
    with pytest.raises(UserError, match="was begun with other data. Put the images back as they were, or begin anew"):
        run_tournament(folder, data=replace(data, fingerprint="0" * 32), watch=Watching())


def test_what_cannot_be_a_tournament_is_refused_before_a_folder_is_made(weights, tmp_path):
    for names, more, said in ((("full",), {}, "needs two strategies"), (("full", "probe"), {"schedule": "plateau"}, "plateau")):
        plan, _ = contest(weights, *names, **more)
        with pytest.raises(UserError, match=said):
            begin(plan, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_folder_that_exists_is_not_written_over(whole, weights):
    plan, _ = contest(weights, "full", "probe")
    with pytest.raises(UserError, match="exists already"):
        begin(plan, whole[0])


def test_two_folds_of_few_images_take_smaller_batches(weights, tmp_path):
    """Batches were cut to the training images; a fold's training images are fewer."""
    data = photographs(n=30, val=6, test=0)
    plan, data = contest(weights, "full", "scratch", data=data, batch_size=30, plan={"epochs": 1})
    assert plan.recipes[0].batch_size == 30 > 18
    begin(plan, tmp_path / "t")
    result = run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert all(trial.cause is None for trial in result.trials)
    assert (result.test, result.n_test, result.test_looks) == (None, 0, 0)


def test_images_of_two_sizes_of_class_and_one_fold_too_many(weights, tmp_path):
    data = photographs(n=12, val=0)
    plan, data = contest(weights, "full", "scratch", data=data, batch_size=8, plan={"folds": 3})
    begin(plan, tmp_path / "t")
    with pytest.raises(UserError, match="3 folds, and a class of 2 images"):
        begin(plan, tmp_path / "other", data)
    assert not (tmp_path / "other").exists()
    with pytest.raises(UserError, match="3 folds, and a class of 2 images"):
        run_tournament(tmp_path / "t", data=data, watch=Watching())


def test_without_test_images_the_winners_errors_are_those_of_a_network_that_had_not_seen_them(weights, tmp_path):
    """The winner has been trained on training and validation images: on those it would look too good."""
    plan, data = contest(weights, "full", "scratch", data=photographs(test=0), plan={"epochs": 8}, lr=0.01)
    begin(plan, tmp_path / "t", data)
    result = run_tournament(tmp_path / "t", data=data, watch=Watching())
    found = complete(tmp_path / "t" / WINNER, data)
    first = next(t for t in result.trials if t.strategy == result.winner and t.rung == len(result.rungs))
    assert (found.split, found.n) == ("val", first.n)
    assert found.accuracy.mean == pytest.approx(first.accuracy)
    assert "There are no test images" in found.notes[0]
    assert codec.read(ErrorReport, tmp_path / "t" / WINNER / ERRORS) == found


def test_a_run_that_nothing_can_judge_says_so_in_a_line(weights, tmp_path):
    recipe, data = prepared("full", weights, photographs(test=0), model="lenet.pocket", settings={"epochs": 1})
    data = replace(data, val=data.test)
    tune(recipe, tmp_path / "run", data)
    with pytest.raises(UserError, match="is trained, and there are no images by which to judge it") as caught:
        complete(tmp_path / "run", data)
    assert "\n" not in str(caught.value)


def test_judging_counts_images_and_can_be_stopped_without_a_look_at_the_test(weights, tmp_path):
    recipe, data = prepared("full", weights, photographs(), model="lenet.pocket", settings={"epochs": 1})
    tune(recipe, tmp_path / "run", data)
    told = []
    with pytest.raises(Stopped):
        complete(tmp_path / "run", data, progress=heeding(Stubborn(told)))
    assert told == [("judging images", len(data.test), len(data.test))]
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").test_looks == 0
    assert not (tmp_path / "run" / "test.json").exists()
    told.clear()
    complete(tmp_path / "run", data, progress=lambda *each: told.append(each))
    assert [each for each in told if each[1] == each[2]] == [
        ("judging images", len(data.test), len(data.test)),
        ("looking at errors", len(data.test), len(data.test)),
    ]
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").test_looks == 1


class Stubborn(Unwatched):
    """Wants everything to stop at once."""

    def __init__(self, told):
        self.told = told

    def computing(self, what, done, total):
        self.told.append((what, done, total))

    def stopping(self):
        return True


def test_weights_that_are_gone_end_the_tournament_and_are_no_strategys_fault(tmp_path):
    path = weights_file(tmp_path / "weights.safetensors", "lenet.pocket")
    plan, data = contest(path, "full", "scratch")
    begin(plan, tmp_path / "t")
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="neither a file nor a source of weights"):
        run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert list((tmp_path / "t" / TRIALS).iterdir()) == []


def test_a_file_of_weights_is_found_from_anywhere(tmp_path, monkeypatch):
    weights_file(tmp_path / "weights.safetensors", "lenet.pocket")
    monkeypatch.chdir(tmp_path)
    recipe, data = prepared("full", "weights.safetensors", model="lenet.pocket", settings={"epochs": 1})
    assert recipe.tuning.weights == str(tmp_path / "weights.safetensors")
    monkeypatch.chdir("/")
    assert tune(recipe, tmp_path / "run", data).status == "finished"


def test_patience_gives_the_refit_as_many_epochs_as_were_best(weights, tmp_path):
    plan, data = contest(weights, "full", "scratch", patience=1, lr=0.02, plan={"epochs": 6})
    begin(plan, tmp_path / "t")
    result = run_tournament(tmp_path / "t", data=data, watch=Watching())
    finals = [t for t in result.trials if t.strategy == result.winner]
    wanted = max(1, round(sum(t.epochs for t in finals) / len(finals)))
    recipe = codec.read(Recipe, tmp_path / "t" / WINNER / "recipe.json")
    assert (recipe.epochs, recipe.patience) == (wanted, 0)
    for trial in finals:
        metrics = read_metrics(tmp_path / "t" / trial.folder / "metrics.jsonl")
        assert trial.loss == min(each.val_loss for each in metrics)
        assert trial.epochs == min(metrics, key=lambda each: each.val_loss).epoch


# ---------------------------------------------------------------- budgets in minutes


@pytest.mark.parametrize(
    "names",
    [
        ("full", "scratch"),
        NAMES,
        ("probe", "full", "bn-bias", "l2-sp", "gradual", "lp-ft", "layer-decay", "last-stages", "scratch"),
        ("full", "bn-bias", "l2-sp"),
    ],
)
@pytest.mark.parametrize("finals", [1, 3])
def test_minutes_are_never_overspent_and_mostly_used(weights, tmp_path, names, finals):
    plan, data = contest(weights, *names, plan={"epochs": None, "minutes": 20.0, "finals": finals})
    contestants = tournament._Contest(plan, tmp_path, data, Watching())
    pretrained = [name for name in names if name != "scratch"]
    rungs = rungs_of(len(pretrained), finals)
    most = 0.0
    for rung in rungs:
        # Cached features cost next to nothing; the most is spent if the dear ones stay.
        dear = [name for name in pretrained if name != "probe"][: rung.strategies] + (["scratch"] if "scratch" in names else [])
        most += rung.trials * sum(contestants.budgeted(name, rung.share).minutes for name in dear)
    most += contestants.budgeted("full", 1.0).minutes
    assert 0.7 * 20 <= most <= 0.75 * 20 + 1e-9
    if "probe" in names:
        recipe = contestants.budgeted("probe", rungs[0].share)
        assert (recipe.minutes, recipe.epochs) == (None, tournament.CACHED_EPOCHS)


@pytest.mark.parametrize("features", [0.0, 120.0])
def test_what_the_features_of_probes_take_is_taken_off_the_rounds_that_follow(weights, tmp_path, monkeypatch, features):
    plan, data = contest(weights, *NAMES, plan={"epochs": None, "minutes": 20.0})
    contestants = tournament._Contest(plan, tmp_path, data, Watching())
    planned, had = contestants.minutes, {}

    def trial(self, name, rungs, rung, *, fold, seed):
        minutes = self.budgeted(name, rungs[rung - 1].share).minutes
        had.setdefault(rung, set()).add(minutes)
        seconds = features if minutes is None else 60 * minutes
        return Trial(name, rung, fold, seed, "trial", 3, seconds, 36, 10, 0.9 if name == "probe" else 0.5, 1.0)

    monkeypatch.setattr(tournament._Contest, "trial", trial)
    rungs = rungs_of(3, 2)
    contestants.play(rungs)
    contestants.see_clock(len(rungs) + 1)
    assert [len(each - {None}) for each in had.values()] == [1, 1], "all of a round have the same"
    total = sum(each.seconds for each in contestants.trials) / 60 + contestants.minutes
    assert (contestants.minutes == planned) == (features == 0.0)
    assert total <= 0.75 * 20 + 1e-9
    assert not features or total == pytest.approx(0.75 * 20)


def test_features_that_take_all_of_the_minutes_leave_the_least(weights):
    plan, _ = contest(weights, *NAMES, plan={"epochs": None, "minutes": 20.0})
    assert finalist_minutes(plan, rung=2, seconds=1e6) == pytest.approx(LEAST_SECONDS / 60 / 0.5)
    assert finalist_minutes(plan, rung=2, seconds=0.0) == finalist_minutes(plan)


def test_a_tournament_by_the_clock(weights, tmp_path):
    plan, data = contest(weights, "probe", "full", "scratch", plan={"epochs": None, "minutes": 0.08, "finals": 1})
    begin(plan, tmp_path / "t")
    result = run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert result.seconds < 0.08 * 60
    assert json.loads((tmp_path / "t" / RESULT).read_text())["winner"] == result.winner


@pytest.mark.parametrize("minutes", [0.0001, 0.01])
def test_minutes_in_which_nothing_can_be_trained_are_refused_with_those_that_would_do(weights, tmp_path, minutes):
    plan, data = contest(weights, *NAMES, plan={"epochs": None, "minutes": minutes})
    with pytest.raises(
        UserError, match=r"minutes leave .* s for a training of the first round. Give --minutes ([\d.]+) or more"
    ) as caught:
        begin(plan, tmp_path / "t", data)
    assert not (tmp_path / "t").exists()
    enough = float(re.search(r"--minutes ([\d.]+)", str(caught.value))[1])
    begin(replace(plan, minutes=enough), tmp_path / "t", data)
    with pytest.raises(UserError):
        begin(replace(plan, minutes=enough * 0.9), tmp_path / "other", data)


def test_too_little_time_for_the_images_is_told_with_the_minutes_that_would_do(weights, tmp_path):
    plan, data = contest(weights, "full", "scratch", plan={"epochs": None, "minutes": 1.0})
    watch = Watching()
    contestants = tournament._Contest(plan, tmp_path, data, watch)
    lines = [EpochMetrics(1, 5, seen, 2.0, 0.1, 1.0, 0.5, 1.0, 0.5, 10.0) for seen in (300, 20)]
    for name, line in zip(("enough", "few"), lines, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(codec.to_line(line))
        contestants.see_haste("full", tmp_path / name, n=100, share=0.5)
        # 300 of 100 images at half the budget are 6 passes of a finalist; 20 are 0.4.
        assert (contestants.haste is None) == (name == "enough")
    assert "a finalist (full) passes over them 0.4 times; with --minutes 13 that would be 5" in contestants.haste


def test_epochs_fall_by_half_a_round_and_never_below_one(weights, tmp_path):
    plan, data = contest(weights, *NAMES, "l2-sp", "gradual", "lp-ft", plan={"epochs": 4})
    contestants = tournament._Contest(plan, tmp_path, data, Watching())
    rungs = rungs_of(6, 2)
    assert [contestants.budgeted("full", rung.share).epochs for rung in rungs] == [1, 2, 4]
    assert contestants.budgeted("full", 0.01).epochs == 1
    assert contestants.budgeted("probe", 0.25).epochs == tournament.CACHED_EPOCHS


def test_a_damaged_trial_is_told(whole, tmp_path):
    folder, _, _, data = whole
    copy = shutil.copytree(folder, tmp_path / "t")
    trial = next(iter(sorted((copy / TRIALS).iterdir())))
    (trial / "summary.json").write_text("{")
    result = run_tournament(copy, data=data, watch=Watching())
    (failed,) = [each for each in result.trials if each.cause is not None]
    assert failed.folder == f"{TRIALS}/{trial.name}"
    assert "summary.json" in failed.cause and "\n" not in failed.cause


def test_a_full_disk_ends_it_and_is_no_strategys_fault(weights, tmp_path, monkeypatch):
    plan, data = contest(weights, "full", "scratch")
    begin(plan, tmp_path / "t")
    own = tournament.train

    def full(recipe, folder, **more):
        raise StorageError("no space left", fix="Make room.")

    monkeypatch.setattr(tournament, "train", full)
    with pytest.raises(StorageError, match="no space left"):
        run_tournament(tmp_path / "t", data=data, watch=Watching())
    monkeypatch.setattr(tournament, "train", own)
    assert all(each.cause is None for each in run_tournament(tmp_path / "t", data=data, watch=Watching()).trials)


def test_a_trial_that_was_killed_before_it_had_a_recipe_is_begun_anew(weights, tmp_path):
    """It is no failure of its strategy's."""
    plan, data = contest(weights, "full", "scratch", plan={"epochs": 1, "finals": 1})
    begin(plan, tmp_path / "t")
    (tmp_path / "t" / TRIALS / "full-1-0-0").mkdir()
    (tmp_path / "t" / WINNER).mkdir()
    result = run_tournament(tmp_path / "t", data=data, watch=Watching())
    assert [(each.strategy, each.cause) for each in result.trials] == [("full", None), ("scratch", None)]


def test_a_tournament_in_use_is_refused(whole):
    folder, _, _, data = whole
    with storage.held(folder), pytest.raises(InUseError, match=r"in use by process \d+"):
        run_tournament(folder, data=data, watch=Watching())


def test_pool_is_training_and_validation(weights, tmp_path):
    plan, data = contest(weights, "full", "scratch")
    pool = tournament._Contest(plan, tmp_path, data, Watching()).pool
    assert isinstance(pool, ImageSet)
    assert torch.equal(pool.labels, torch.cat([data.train.labels, data.val.labels]))
