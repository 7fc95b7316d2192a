"""The learning-rate range test: the steps of a run, a growing learning rate, a hint by a rule."""

import math

import pytest
import torch

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.lr_range import LrRange, LrStep
from convatlas.records.run import read_metrics
from convatlas.training.loop import train
from convatlas.training.lr_range import RULE, lr_range, suggested

from .makers import small_data, small_recipe


def tried(*, data=None, low=1e-4, high=1.0, steps=20, **changes):
    recipe = small_recipe(**{"model": "lenet.pocket", **changes})
    return lr_range(recipe, data=data or small_data(), low=low, high=high, steps=steps)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "crop": 2, "cutout": 4}, {"model": "resnet.pocket"}])
def test_its_steps_are_those_of_a_run(tmp_path, changes):
    """At a learning rate that hardly grows, the mean loss of six batches is that of a run's first epoch at that rate."""
    recipe = small_recipe(**{"model": "lenet.pocket", "epochs": 1, "schedule": "constant", "warmup": 0.0, "lr": 0.01} | changes)
    train(recipe, tmp_path / "run", data=small_data())
    (epoch,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    found = lr_range(recipe, data=small_data(), low=0.01, high=0.01 * (1 + 1e-12), steps=12)
    assert sum(step.loss for step in found.steps[:6]) / 6 == pytest.approx(epoch.train_loss, rel=1e-6)


def test_the_learning_rate_grows_by_the_same_factor_and_losses_are_smoothed_without_bias():
    found = tried(low=1e-4, high=1e-2, steps=21)
    assert len(found.steps) == 21 and not found.exploded
    assert [step.lr for step in found.steps] == pytest.approx([1e-4 * 10 ** (i / 10) for i in range(21)])
    assert found.steps[0].smoothed == pytest.approx(found.steps[0].loss)
    keep = 1 - 1 / (0.05 * 21)
    weights = [keep**i for i in range(21)]
    expected = sum(w * step.loss for w, step in zip(weights, reversed(found.steps), strict=True)) / sum(weights)
    assert found.steps[-1].smoothed == pytest.approx(expected)
    assert codec.from_text(LrRange, codec.to_text(found), where="x") == found


def test_the_same_seed_gives_the_same_test_and_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = tried(), tried(), tried(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.steps == second.steps
    assert first.steps != other.steps


def test_it_ends_when_the_loss_explodes():
    found = tried(optimizer="sgd", momentum=0.9, low=1e-3, high=1e4, steps=60, clip_grad=0.0)
    assert found.exploded
    assert len(found.steps) < 60
    assert all(math.isfinite(step.loss) for step in found.steps)
    told = []
    lr_range(small_recipe(model="lenet.pocket"), data=small_data(), steps=12, progress=lambda *at: told.append(at))
    assert told == [(i, 12) for i in range(1, 13)]


def falling(*losses):
    return tuple(LrStep(10.0**i, loss, loss) for i, loss in enumerate(losses))


def test_the_rule():
    assert suggested(falling(2.3, 2.0, 1.5, 1.8, 9.0), exploded=True) == (100 / 3, RULE)
    assert suggested(falling(2.3, 2.0, 1.5, 1.8), exploded=False) == (100 / 3, RULE)
    value, why = suggested(falling(2.3, 2.0, 1.5), exploded=False)
    assert value is None and "larger --to" in why
    value, why = suggested(falling(2.3, 2.29, 9.0), exploded=True)
    assert value is None and "never fell" in why


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": 1.0, "high": 1.0}, "learning rates from 1 to 1 do not grow"),
        ({"low": 2.0, "high": 1.0}, "do not grow"),
        ({"low": math.nan}, "the lowest learning rate is nan"),
        ({"high": math.inf}, "the highest learning rate is inf"),
        ({"low": 0.0}, "the lowest learning rate is 0"),
        ({"steps": 9}, "steps are 9. Give a whole number from 10"),
        ({"model": "resnet.pockt"}, "no model called 'resnet.pockt'. Did you mean resnet.pocket"),
        ({"low": 1e4, "high": 1e6, "optimizer": "sgd", "clip_grad": 0.0}, "the loss exploded at step [2-5], with.*--from 1e.01"),
        ({"batch_size": 97}, "larger than the 96 training images"),
    ],
)
def test_bad_input(changes, said):
    with pytest.raises(UserError, match=said):
        tried(**changes)


def test_a_network_that_gives_no_numbers_is_refused(monkeypatch):
    monkeypatch.setattr("convatlas.training.lr_range._step", lambda *_, **__: math.nan)
    with pytest.raises(UserError, match="no number before the first update"):
        tried()


def test_a_recipe_with_growing_images_and_a_moving_average_is_tried_at_full_size():
    plain = tried(epochs=4)
    assert tried(epochs=4, sizes=((0.5, 24.0),), ema=0.9).steps == plain.steps
