"""Gradients kept along a run: they change nothing of it, and go with it when it is stopped and taken up again."""

from dataclasses import replace

import pytest
import torch

from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.gradients import read_flows
from convatlas.records.run import Recipe, read_metrics
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped

from .makers import StopAfter, small_data, small_recipe


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def losses(folder):
    return [(m.train_loss, m.val_loss) for m in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("model", ["resnet.pocket", "efficientnet.pocket"])
def test_keeping_gradients_changes_no_bit_of_a_run(model, tmp_path):
    data, recipe = small_data(size=16), small_recipe(model=model, epochs=2)
    train(recipe, tmp_path / "without", data=data)
    train(replace(recipe, gradients=True), tmp_path / "with", data=data)
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    flows = read_flows(tmp_path / "with").flows
    assert [flow.epoch for flow in flows] == [0, 1, 2]
    assert len({flow.loss for flow in flows}) == 3
    assert not (tmp_path / "without" / "gradients.jsonl").exists()


@pytest.mark.untraced  # long, and other tests reach its lines
def test_a_run_that_was_stopped_has_the_same_gradients(tmp_path):
    """On small images, since what is kept of gradients does not depend on their size."""
    data, recipe = small_data(size=16), small_recipe(epochs=3, gradients=True)
    train(recipe, tmp_path / "whole", data=data)
    for steps in (3, 6, 9, 17):
        stopped = tmp_path / f"stopped after {steps}"
        with pytest.raises(Stopped):
            train(recipe, stopped, data=data, watch=StopAfter(steps))
        resume(stopped, data=data)
        assert read_flows(stopped).flows == read_flows(tmp_path / "whole").flows


def test_a_torn_last_line_is_left_out_and_a_damaged_one_is_named(tmp_path):
    train(small_recipe(epochs=1, gradients=True), tmp_path / "run", data=small_data())
    path = tmp_path / "run" / "gradients.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[0][:50])
    assert [flow.epoch for flow in read_flows(tmp_path / "run").flows] == [0, 1]
    path.write_text("{}\n" + whole)
    with pytest.raises(UserError, match=r"gradients.jsonl:1 lacks the key 'model'"):
        read_flows(tmp_path / "run")


def test_a_run_without_gradients_says_how_to_get_them(tmp_path):
    train(small_recipe(epochs=1), tmp_path / "run", data=small_data())
    with pytest.raises(UserError, match="has no gradients. Train with --gradients"):
        read_flows(tmp_path / "run")


def test_recipes_from_before_are_read():
    plain = codec.to_plain(small_recipe())
    del plain["gradients"]
    assert codec.from_plain(Recipe, plain, where="x") == small_recipe()


def test_the_fixed_batch_is_fixed():
    from convatlas.training.gradients import fixed_batch

    first, second = (fixed_batch(small_data(), size=16, seed=3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert first[0].shape == (16, 3, 32, 32)
