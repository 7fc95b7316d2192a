"""What a plan may tune, and between which values."""

import importlib.util
import math

import pytest

from convatlas.errors import UserError
from convatlas.records.findings import Tuned
from convatlas.records.plan import Searched
from convatlas.records.run import Recipe
from convatlas.study.search_space import TUNABLE, apply_tuning, check_tuning, grid_values, kind_of, tuning_of
from convatlas.training.recipe import NAMES, RANGES

from ..training.makers import small_recipe
from .searches import LR, tuning


def test_a_plans_search_is_read():
    content = {
        "trials": 4,
        "epochs": 2,
        "sampler": "grid",
        "searched": {
            "lr": {"low": 1e-3, "high": 1, "log": True, "points": 3},
            "flip": [True, False],
            "ema": {"choices": [0, 0.9]},
        },
    }
    found = tuning_of(content, where="plan.yaml: tune")
    assert found.searched == (
        Searched("lr", 0.001, 1.0, log=True, points=3),
        Searched("flip", choices=("on", "off")),
        Searched("ema", choices=("0", "0.9")),
    )
    assert (found.trials, found.epochs, found.sampler, found.pruner, found.seed) == (4, 2, "grid", "median", 1_000_000)
    check_tuning(found, ("model", "model.norm"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searched": None}, "does not say what is searched"),
        ({"searched": {"lr": 0.1}}, "searched: lr is '0.1'. Give a list"),
        ({"searched": {"lr": {"low": 1, "hihg": 2}}}, "unknown key 'hihg'. Did you mean 'high'"),
        ({"searched": {"lr": {"choices": 3}}}, "choices is '3'. Give a list"),
        ({"searched": {"lr": {"low": "a", "high": 2}}}, "low is 'a', which is no float"),
        ({"trails": 3}, "unknown key 'trails'. Did you mean 'trials'"),
        ({"trials": 2.5}, "trials is '2.5'"),
        ({"trials": True}, "trials is 'True'"),
    ],
)
def test_a_search_that_cannot_be_read(changes, said):
    content = {"trials": 3, "epochs": 1, "searched": {"lr": [0.1, 0.2]}}
    with pytest.raises(UserError, match=said):
        tuning_of(content | changes, where="plan.yaml: tune")


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (tuning(Searched("lrr", 0.1, 0.2)), "no setting called 'lrr'. Did you mean lr"),
        (tuning(Searched("seed", 1, 2)), "seed cannot be tuned: all trials have the same"),
        (tuning(Searched("model", choices=("a", "b"))), "model cannot be tuned"),
        (tuning(Searched("epochs", 1, 2)), "epochs cannot be tuned"),
        (tuning(Searched("batch_size", 8, 16)), "batch_size cannot be tuned"),
        (tuning(LR, LR), "lr is searched twice"),
        (tuning(Searched("lr")), "lr has neither choices nor both low and high"),
        (tuning(Searched("lr", 0.1)), "lr has neither choices nor both"),
        (tuning(Searched("lr", 0.1, 0.2, choices=("0.1",))), "lr has choices and a range"),
        (tuning(Searched("lr", 0.2, 0.1)), "lr goes from 0.2 to 0.1. Give the smaller one first"),
        (tuning(Searched("lr", 0.0, 0.1)), "lr cannot be 0. Give a number above 0"),
        (tuning(Searched("lr", 0.1, math.inf)), "lr cannot be inf"),
        (tuning(Searched("lr", math.nan, 1.0)), "lr cannot be nan"),
        (tuning(Searched("momentum", 0.5, 1.0)), "momentum cannot be 1"),
        (tuning(Searched("weight_decay", 0.0, 0.1, log=True)), "weight_decay begins at 0, which no logarithmic scale has"),
        (tuning(Searched("cutout", 1.5, 8)), "Give whole numbers"),
        (tuning(Searched("optimizer", 0, 1)), "optimizer is no number"),
        (tuning(Searched("flip", 0, 1)), "flip is no number"),
        (tuning(Searched("optimizer", choices=("adamw", "sdg"))), "no optimizer called 'sdg'. Did you mean sgd"),
        (tuning(Searched("flip", choices=("perhaps",))), "flip cannot be 'perhaps'. Give on or off"),
        (tuning(Searched("crop", choices=("2", "2.5"))), "crop cannot be '2.5'"),
        (tuning(Searched("lr", choices=("0.1", "1e-1"))), "lr has the same choice twice"),
        (tuning(Searched("lr", choices=("nan",))), "lr cannot be nan"),
        (tuning(Searched("crop", 4, 65)), "crop cannot be 65. Give a whole number of pixels from 0 to 64.$"),
        (tuning(Searched("mixup", 0.2, 101)), "mixup cannot be 101. Give an alpha above 0, at most 100, or 0 to do without.$"),
        (tuning(Searched("lr", 0.1, 1e30)), r"lr cannot be 1e\+30. Give a number above 0, at most 1e\+06.$"),
        (tuning(Searched("lr", 0.1, 0.2, points=3)), "lr has points, which only a grid has"),
        (tuning(LR, sampler="grid"), "a grid needs to know which values lr takes"),
        (tuning(Searched("cutout", 0, 2, points=5), sampler="grid"), "cutout has fewer than 5 whole numbers"),
        (tuning(Searched("lr", choices=("0.1", "0.2")), sampler="grid"), "the grid has 2 points, fewer than the 3 trials"),
        (tuning(sampler="tpa"), "no sampler called 'tpa'. Did you mean tpe"),
        (tuning(pruner="medien"), "no pruner called 'medien'. Did you mean median"),
        (tuning(trials=0), "tuning has 0 trials"),
        (tuning(epochs=0), "tuning has 0 epochs"),
        (tuning(seed=-1), "seed cannot be -1"),
    ],
)
def test_a_search_that_cannot_be(search, said):
    with pytest.raises(UserError, match=said):
        check_tuning(search)


def test_a_factor_is_not_tuned_too():
    with pytest.raises(UserError, match="lr is a factor of the study, and cannot be tuned too"):
        check_tuning(tuning(), ("model", "lr"))


def test_without_optuna_it_is_said_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr("convatlas.study.search_space.find_spec", lambda name: None if name == "optuna" else real(name))
    with pytest.raises(UserError, match=r"not installed. Install it: pip install 'convatlas\[tune\]'"):
        check_tuning(tuning())


def test_every_setting_that_may_be_tuned_has_its_limits():
    for name in TUNABLE:
        assert kind_of(name) is bool or name in NAMES or name in RANGES
        assert hasattr(Recipe, name)


def test_a_grid_goes_from_end_to_end():
    assert grid_values(Searched("lr", 0.001, 0.1, log=True, points=3)) == pytest.approx([0.001, 0.01, 0.1])
    assert grid_values(Searched("cutout", 0, 8, points=3)) == [0, 4, 8]
    assert grid_values(Searched("flip", choices=("on", "off"))) == ["on", "off"]


def test_what_was_found_goes_into_the_recipe():
    search = tuning(
        LR, Searched("flip", choices=("on", "off")), Searched("crop", 0, 4), Searched("optimizer", choices=("sgd", "adamw"))
    )
    found = Tuned("x", 3, {"lr": "0.012345678901234567", "flip": "off", "crop": "3", "optimizer": "sgd"}, 0.5)
    recipe = apply_tuning(small_recipe(), found, search)
    assert (recipe.lr, recipe.flip, recipe.crop, recipe.optimizer) == (0.012345678901234567, False, 3, "sgd")
    assert (recipe.epochs, recipe.seed) == (3, 0)
    for other in (Tuned("x", 4, found.settings, 0.5), Tuned("x", 3, {"lr": "0.1"}, 0.5)):
        with pytest.raises(UserError, match="x was tuned by another search than the plan's"):
            apply_tuning(small_recipe(), other, search)
