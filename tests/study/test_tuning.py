"""The search that each variant gets: as many trials, on validation, and the same after whatever interruption."""

import os
import random
from dataclasses import replace

import optuna
import pytest
import torch

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.findings import Tuned
from convatlas.records.plan import Searched
from convatlas.records.run import read_run
from convatlas.study import tuning as searching
from convatlas.study.search_space import apply_tuning
from convatlas.study.tuning import suggestion, trial_recipe, tune_variant
from convatlas.training import closing
from convatlas.training.outcome import Stopped

from ..training.kills import Moment, die, digest, prepare
from ..training.makers import StopAfter, small_data
from .searches import LR, plan, tuning, variant

FOREVER = 10**9
TWO = (LR, Searched("cutout", 0, 8), Searched("optimizer", choices=("adamw", "sgd")))


def tuned(folder, search, *, watch=None, data=None, of=None):
    of = of or variant()
    return tune_variant(folder, plan(search, of), of, data=data or small_data(), watch=watch or StopAfter(FOREVER))


def test_trials_are_runs_on_validation_and_the_best_is_kept(tmp_path):
    search = tuning(*TWO, trials=4)
    found = tuned(tmp_path, search)
    assert found == codec.read(Tuned, tmp_path / "tuned" / "lenet.json")
    assert [each.run for each in found.tried] == [f"tune/lenet/trial-00{i}" for i in range(4)]
    runs = [read_run(tmp_path / each.run) for each in found.tried]
    for run, each in zip(runs, found.tried, strict=True):
        assert (run.recipe.seed, run.recipe.epochs, run.summary.status) == (search.seed, 2, "finished")
        assert run.recipe == trial_recipe(variant().recipe, each.settings, search)
        assert (each.outcome, each.epochs, each.val_accuracy) == ("finished", 2, run.metrics[-1].val_accuracy)
        assert run.summary.test_looks == 0 and not (tmp_path / each.run / "test_epochs.jsonl").exists()
        assert each.settings["lr"] == repr(run.recipe.lr)
    best = max(range(4), key=lambda i: (found.tried[i].val_accuracy, -i))
    assert (found.settings, found.val_accuracy) == (found.tried[best].settings, found.tried[best].val_accuracy)
    recipe = apply_tuning(variant().recipe, found, search)
    assert recipe == replace(runs[best].recipe, epochs=7, seed=0, test_each_epoch=True)
    assert len({each.settings["lr"] for each in found.tried}) == 4


def test_variants_get_the_same_budget_and_the_same_first_suggestions(tmp_path):
    search = tuning(*TWO, trials=3)
    one, other = (tuned(tmp_path, search, of=variant(name, ema=ema)) for name, ema in (("a", 0.0), ("b, ema=0.9", 0.9)))
    assert [each.settings for each in one.tried] == [each.settings for each in other.tried]
    assert other.tried[0].run.startswith("tune/b-ema-0.9-")


def test_one_trial_is_enough(tmp_path):
    found = tuned(tmp_path, tuning(trials=1, epochs=1))
    assert len(found.tried) == found.trials == 1
    assert found.val_accuracy == found.tried[0].val_accuracy


def test_without_validation_there_is_nothing_to_tune_by(tmp_path):
    data = small_data()
    with pytest.raises(UserError, match="there is no validation image to tune by"):
        tuned(tmp_path, tuning(), data=replace(data, val=data.val.subset([])))
    assert not list(tmp_path.iterdir())


def test_optunas_messages_are_as_loud_as_before_and_random_numbers_as_they_were(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    tuned(tmp_path, tuning(trials=1, epochs=1))
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_suggestion_is_a_function_of_what_was_tried_before(sampler):
    """Far beyond TPE's start, where it begins to learn."""
    points = {"points": 5} if sampler == "grid" else {}
    searched = (Searched("lr", 1e-4, 1.0, log=True, **points), Searched("cutout", 0, 8, **points), TWO[2])
    search = tuning(*searched, trials=30, sampler=sampler)
    study, other = (optuna.create_study(direction="maximize") for _ in range(2))
    for number in range(30):
        params = suggestion(study.trials, search)
        assert suggestion(study.trials, search) == params
        value = -abs(params["lr"] - 0.01)
        for each in (study, other):
            told = {"params": params, "distributions": searching._distributions(search)}
            each.add_trial(optuna.trial.create_trial(value=value if each is study else -value, **told))
        if number == 9:
            early = [trial.params for trial in study.trials]
    late = [trial.params for trial in study.trials]
    assert len({tuple(sorted(each.items())) for each in late}) == 30
    assert all(isinstance(each["cutout"], int) for each in late)
    if sampler == "tpe":
        assert suggestion(study.trials, search) != suggestion(other.trials, search)
        errors = [abs(each["lr"] - 0.01) for each in late]
        assert sorted(errors[15:])[7] < sorted(errors[:10])[5], "it has learnt where the best is"
    assert early == late[:10]
    assert suggestion([], search) != suggestion([], replace(search, seed=5))


def test_hopeless_trials_are_stopped_early_and_said_to_be(tmp_path, monkeypatch):
    real = optuna.pruners.MedianPruner
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda: real(n_startup_trials=1))
    order = iter([{"lr": 0.003}, {"lr": 1e-9}, {"lr": 0.004}])
    monkeypatch.setattr(searching, "suggestion", lambda history, search: next(order))
    search = tuning(Searched("lr", 1e-10, 1.0, log=True), trials=3, epochs=6)
    watch = StopAfter(FOREVER)
    found = tuned(tmp_path, search, watch=watch)
    assert [each.outcome for each in found.tried][:2] == ["finished", "pruned"]
    assert found.tried[1].epochs < 6
    run = read_run(tmp_path / found.tried[1].run)
    assert (run.summary.status, run.metrics[-1].epoch) == ("interrupted", found.tried[1].epochs)
    assert found.tried[1].val_accuracy == run.metrics[-1].val_accuracy
    assert found.settings["lr"] != repr(1e-9)
    assert len(watch.epochs) == sum(each.epochs for each in found.tried), "the study's watcher hears of every epoch"


def test_a_trial_that_was_pruned_but_not_kept_is_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "_hopeless", lambda search, values: len(search.trials) == 1)
    real, search = optuna.Study.add_trial, tuning(trials=2, epochs=3)

    def interrupted(self, trial):
        if trial.state == optuna.trial.TrialState.PRUNED:
            raise KeyboardInterrupt
        real(self, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, search)
    monkeypatch.setattr(optuna.Study, "add_trial", real)
    states = sorted(path.name for path in (tmp_path / "tune" / "lenet" / "trial-001").glob("state-*"))
    watch = StopAfter(FOREVER)
    found = tuned(tmp_path, search, watch=watch)
    assert [(each.outcome, each.epochs) for each in found.tried] == [("finished", 3), ("pruned", 1)]
    assert states == sorted(path.name for path in (tmp_path / "tune" / "lenet" / "trial-001").glob("state-*"))
    assert not watch.epochs


def test_without_a_pruner_every_trial_goes_to_its_end(tmp_path):
    found = tuned(tmp_path, tuning(Searched("lr", 1e-10, 1.0, log=True), trials=7, epochs=1, pruner="none"))
    assert {each.outcome for each in found.tried} == {"finished"}


def test_a_trial_that_explodes_is_one_of_the_trials(tmp_path):
    search = tuning(Searched("lr", choices=("0.003", "100000")), trials=2, sampler="grid")
    found = tuned(tmp_path, search, of=variant(optimizer="sgd", clip_grad=0.0, warmup=0.0))
    (bad,) = [each for each in found.tried if each.outcome == "failed"]
    assert bad.settings == {"lr": "100000"} and bad.val_accuracy is None
    assert "the loss became" in bad.cause
    assert found.settings == {"lr": "0.003"}


def test_if_all_explode_it_is_said_why(tmp_path):
    of = variant(optimizer="sgd", clip_grad=0.0, warmup=0.0)
    search = tuning(Searched("lr", choices=("100000", "1000000")), trials=2, sampler="grid")
    with pytest.raises(UserError, match="no trial for lenet came to its end: the loss became"):
        tuned(tmp_path, search, of=of)
    assert not (tmp_path / "tuned" / "lenet.json").exists()


def test_stopped_by_its_user_it_goes_on_where_it_was(tmp_path):
    search = tuning(*TWO, trials=3)
    whole = tuned(tmp_path / "whole", search)
    for steps in (3, 8, 14, 2):
        with pytest.raises(Stopped):
            tuned(tmp_path / "cut", search, watch=StopAfter(steps))
    done = (tmp_path / "cut" / "tune" / "lenet" / "trial-000" / "model.safetensors").stat().st_mtime_ns
    assert tuned(tmp_path / "cut", search) == whole
    assert (tmp_path / "cut" / "tune" / "lenet" / "trial-000" / "model.safetensors").stat().st_mtime_ns == done
    assert tuned(tmp_path / "cut", search, watch=StopAfter(1)) == whole, "nothing is left to do"


def attempt(folder, search, moment):
    """Search in a child until it is done or dead; whether it was done."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            closing.SECONDS_BETWEEN_STATES = 0.0
            if moment is not None and moment.kind == "journal":
                die_in_journal(moment.after)
            elif moment is not None:
                prepare(moment)
            tuned(folder, search)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "a search that is gone on with ended with an error"
    return os.WIFEXITED(status)


def die_in_journal(after):
    """Write half of a record of Optuna's, with its lock held, and die."""
    from optuna.storages.journal import JournalFileBackend

    left = [after]
    real = JournalFileBackend.append_logs

    def append(self, logs):
        left[0] -= 1
        if left[0] < 0:
            self._lock.acquire()
            with open(self._file_path, "ab") as file:
                file.write(b'{"op_code":4,"worker')
                file.flush()
            die()
        real(self, logs)

    JournalFileBackend.append_logs = append


def test_killed_at_random_moments_the_search_is_the_unbroken_one(tmp_path):
    search = tuning(*TWO, trials=4)
    whole = tuned(tmp_path / "whole", search)
    draw, kills, folder = random.Random(0), 0, tmp_path / "cut"
    moments = [
        ("journal", 1),
        ("disk", 3),
        ("disk", 25),
        ("time", 0.15),
        ("journal", 0),
        ("validation", 2),
        ("disk", draw.randrange(60)),
    ]
    for kind, after in moments:
        kills += not attempt(folder, search, Moment(kind, after))
    assert attempt(folder, search, None)
    assert kills >= 5
    assert codec.read(Tuned, folder / "tuned" / "lenet.json") == whole
    for each in whole.tried:
        assert digest(folder / each.run) == digest(tmp_path / "whole" / each.run)
    assert not list(folder.glob("**/.*.tmp"))


def test_what_a_broken_off_write_left_is_removed_and_that_of_another_search_is_not(tmp_path):
    (tmp_path / "tuned").mkdir()
    ours, other = (tmp_path / "tuned" / f".{name}.json.99.tmp" for name in ("lenet", "lenet2"))
    ours.touch()
    other.touch()
    tuned(tmp_path, tuning(trials=1))
    assert not ours.exists() and other.exists()


def test_a_damaged_journal_and_a_foreign_trial_are_refused(tmp_path):
    with pytest.raises(Stopped):
        tuned(tmp_path, tuning(), watch=StopAfter(14))
    with pytest.raises(UserError, match="trial-001 was begun with other settings than are suggested now"):
        tuned(tmp_path, tuning(), of=variant(cutout=4))
    journal = tmp_path / "tune" / "lenet" / "journal.log"
    journal.write_text("nonsense\n" + journal.read_text())
    with pytest.raises(UserError, match="journal.log is damaged"):
        tuned(tmp_path, tuning())


def test_two_processes_do_not_search_the_same(tmp_path):
    from convatlas.records import storage

    (tmp_path / "tune" / "lenet").mkdir(parents=True)
    with storage.held(tmp_path / "tune" / "lenet"), pytest.raises(UserError, match="in use by process"):
        tuned(tmp_path, tuning())
