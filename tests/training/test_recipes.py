"""Named recipes hold together, and the command line begins with them."""

import json
from dataclasses import replace

import pytest

from convatlas.errors import UserError
from convatlas.models.registry import find_variant
from convatlas.records.run import read_metrics
from convatlas.training.loop import train
from convatlas.training.recipe import check_recipe
from convatlas.training.recipes import MACHINES, RECIPES, find_recipe
from tests.cli.makers import convatlas
from tests.cli.zygote import command

from .makers import small_data, small_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_run(name):
    recipe = find_recipe(name)
    check_recipe(recipe)
    find_variant(recipe.model)
    assert recipe.name == name
    assert recipe.data == "cifar10"
    for reached in RECIPES[name].reached:
        assert all(0 < accuracy < 1 for accuracy in reached.accuracies) and reached.seconds > 0
        assert reached.machine in MACHINES


def test_an_unknown_recipe_is_named():
    with pytest.raises(UserError, match="there is no recipe called 'fast95'. Did you mean fast96 or fast94"):
        find_recipe("fast95")


def test_the_list_and_one_recipe(tmp_path):
    listed = convatlas("recipes", folder=tmp_path)
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in RECIPES)
    one = convatlas("recipes", "fast94", folder=tmp_path)
    assert "from: ours, after Jordan" in one.stdout
    assert "label_smoothing" in one.stdout
    plain = json.loads(convatlas("recipes", "teaching", "--json", folder=tmp_path).stdout)
    assert plain["teaching"]["recipe"]["optimizer"] == "adam"
    unknown = convatlas("recipes", "fast", folder=tmp_path)
    assert unknown.returncode == 2 and "there is no recipe called 'fast'" in unknown.stderr


def test_a_recipe_begins_a_run_and_options_replace_its_settings(tmp_path):
    words = (
        "train",
        "lenet.pocket",
        "--recipe",
        "standard",
        "--data",
        "digits",
        "--image-size",
        "32",
        "--epochs",
        "1",
        "--explain",
    )
    done = convatlas(*words, "--out", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert (recipe["name"], recipe["model"], recipe["data"], recipe["epochs"]) == ("standard", "lenet.pocket", "digits", 1)
    assert (recipe["optimizer"], recipe["lr"], recipe["flip"]) == ("sgd", 0.1, False), "digits are not mirrored"
    choices = json.loads((tmp_path / "run/summary.json").read_text())["choices"]
    said = {reason["about"]: reason for reason in choices["reasons"]}
    assert {"device", "precision", "memory format", "threads", "optimizer", "allocator", "convolutions", "compile"} <= set(said)
    for reason in said.values():
        assert reason["chosen"] in done.stderr and reason["why"] in done.stderr
    quiet = command(*words[:-1], "--allocator", "system", folder=tmp_path)
    assert "memory format" not in quiet.stderr


def test_a_batch_that_was_asked_for_is_not_made_smaller_and_one_that_was_not_is(tmp_path):
    from convatlas.cli.working import tied_to

    data, recipe = small_data(), small_recipe(batch_size=128)
    assert tied_to(recipe, data, batch_given=False).batch_size == 96
    assert tied_to(recipe, data, batch_given=True).batch_size == 128
    refused = command("train", "lenet.pocket", "--data", "digits", "--batch-size", "5000", folder=tmp_path)
    assert refused.returncode == 2
    assert "batches of 5000 images are larger than" in refused.stderr
    assert not (tmp_path / "runs").exists()
    wrong = command("train", "lenet.pocket", "--allocator", "jemalloc", folder=tmp_path)
    assert wrong.returncode == 2 and "--allocator is 'jemalloc'. Choose auto or system." in wrong.stderr


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast94", "compact1m", "compact300k"])
def test_the_rates_of_a_fast_recipe_let_its_network_learn(tmp_path, name):
    """With rates for a wider network it says the same of every image after ten steps, and for ever."""
    data = small_data(n=600, size=24)
    recipe = replace(find_recipe(name), data_fingerprint=data.fingerprint, batch_size=100, epochs=4, sizes=())
    train(recipe, tmp_path / "run", data=data)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1].train_accuracy > 0.5
