import re
from dataclasses import replace

import pytest

from convatlas.data.readers.picture_files import NO_SPLITS
from convatlas.errors import UserError
from convatlas.study.holding import steps_of

from ..training.makers import small_data
from .small import RECIPE, TINY, plan_of, study


def names(plan):
    return [variant.name for variant in plan.variants]


def test_a_full_factorial_has_every_combination_once():
    plan = plan_of(factors={"norm": ["batch", "none"], "lr": [0.01, 0.1], "kernel_size": [3]}, seeds=3)
    assert names(plan) == ["norm=batch, lr=0.01", "norm=batch, lr=0.1", "norm=none, lr=0.01", "norm=none, lr=0.1"]
    assert [v.recipe.lr for v in plan.variants] == [0.01, 0.1, 0.01, 0.1]
    assert ['"norm": "none"' in v.recipe.model for v in plan.variants] == [False, False, True, True]
    assert plan.variants[2].levels == {"model.norm": "none", "lr": "0.01", "model.kernel_size": "3"}
    assert plan.seeds == (0, 1, 2)
    assert len(plan.comparisons) == 6, "all pairs of four"


def test_one_at_a_time_changes_one_factor_of_the_first_variant():
    plan = plan_of(factors={"norm": ["batch", "none", "group"], "lr": [0.01, 0.1]}, design="one-at-a-time")
    assert names(plan) == ["baseline", "norm=none", "norm=group", "lr=0.1"]
    assert [(pair.first, pair.second) for pair in plan.comparisons] == [(name, names(plan)[0]) for name in names(plan)[1:]]


def test_levels_may_be_named_and_settings_may_go_together():
    both = {"sgd": {"optimizer": "sgd", "lr": 0.05}, "adamw": {"optimizer": "adamw"}}
    plan = plan_of(factors={"recipe": both, "model": {"tiny": TINY, "plain": {**TINY, "shortcut": False}}}, model=None)
    assert names(plan) == ["sgd, tiny", "sgd, plain", "adamw, tiny", "adamw, plain"]
    assert [(v.recipe.optimizer, v.recipe.lr, v.recipe.weight_decay) for v in plan.variants[1:3]] == [
        ("sgd", 0.05, 5e-4),
        ("adamw", 0.003, 0.05),
    ], "what depends on the optimizer follows it"


def test_a_recipe_may_begin_with_a_named_one():
    plan = plan_of(recipe={"base": "standard", "data": "shapes", "epochs": 2, "batch_size": 16})
    recipe = plan.variants[0].recipe
    assert (recipe.optimizer, recipe.schedule, recipe.weight_decay, recipe.epochs) == ("sgd", "cosine", 5e-4, 2)
    assert recipe.compile == "off"
    assert recipe.convolutions == "stock", "nothing is chosen by a trial"


def test_params_are_held_equal_by_the_width():
    models = {"narrow": TINY, "deep": {"family": "resnet", "depths": [2, 2, 2], "width": 0.25}, "vgg": "vgg.pocket"}
    plan = plan_of(factors={"model": models}, model=None, hold={"params": "first", "tolerance": 0.05})
    first = plan.variants[0]
    assert first.width is None
    for variant in plan.variants:
        assert abs(variant.params / first.params - 1) <= 0.05
    assert plan.variants[1].width < 1
    assert plan.held[0].target == first.params


def test_steps_are_held_equal_by_the_epochs():
    plan = plan_of(factors={"batch_size": [16, 32, 48]}, recipe={**RECIPE, "epochs": 6}, hold={"steps": "first"})
    assert [variant.recipe.epochs for variant in plan.variants] == [6, 12, 18]
    assert {variant.steps for variant in plan.variants} == {36}
    assert [steps_of(variant.recipe, small_data()) for variant in plan.variants] == [36] * 3


def test_minutes_are_held_equal_by_the_budget():
    plan = plan_of(recipe=NO_BUDGET, hold={"minutes": 0.5})
    assert {variant.recipe.minutes for variant in plan.variants} == {0.5}
    assert {variant.steps for variant in plan.variants} == {None}


def test_comparisons_may_be_named():
    factors = {"lr": [0.1, 0.2, 0.3]}
    plan = plan_of(factors=factors, compare=[["lr=0.3", "lr=0.1"]])
    assert [(pair.first, pair.second) for pair in plan.comparisons] == [("lr=0.3", "lr=0.1")]
    assert len(plan_of(factors=factors, compare="baseline").comparisons) == 2


def test_a_network_of_the_users_own_is_a_study(tmp_path):
    code = (
        "from torch import nn\n"
        "def make(num_classes=10, in_chans=3, width=8):\n"
        "    body = [nn.Conv2d(in_chans, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]\n"
        "    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    (tmp_path / "net.py").write_text(code)
    from convatlas.study.trusting import code_files, trust_plan

    made = study(model=f"{tmp_path}/net.py:make", factors={"norm": ["batch", "none"], "act": ["relu", "tanh"]})
    trust_plan(made)
    plan = plan_of(made)
    assert len(plan.variants) == 4
    assert len({variant.recipe.code_sha256 for variant in plan.variants}) == 1
    assert plan.variants[0].recipe.code_sha256 is not None
    assert code_files(plan) == [(tmp_path / "net.py").resolve()]
    widths = {"narrow": {"width": 4}, "wide": {"width": 16}}
    plan = plan_of(study(model=f"{tmp_path}/net.py:make", factors={"with": widths}))
    assert names(plan) == ["narrow", "wide"]
    assert plan.variants[1].params > 3 * plan.variants[0].params


NO_BUDGET = {key: value for key, value in RECIPE.items() if key != "epochs"}
BAD = [
    ({"factors": {"lr": list(range(1, 101)), "epochs": list(range(1, 101))}}, "10,000 variants are too many"),
    ({"factors": {}}, "has no factors"),
    ({"factors": {"kernle_size": [3, 5]}}, "factors has an unknown key 'kernle_size'. Did you mean 'model.kernel_size'"),
    ({"factors": {"seed": [1, 2]}}, "seed cannot be a factor"),
    ({"factors": {"lr": []}}, "has 0 levels"),
    ({"factors": {"lr": 3}}, "Give a list of levels"),
    ({"factors": {"lr": [0.1, 0.1]}}, "has the level '0.1' twice"),
    ({"factors": {"lr": ["fast", 0.1]}}, "lr is 'fast', which is no float"),
    ({"factors": {"lr": [-1, 0.1]}}, "lr is -1.0"),
    ({"factors": {"epochs": [1.5, 2]}}, "epochs is '1.5'"),
    ({"factors": {"growth_rate": [4, 8]}}, "growth_rate"),
    ({"factors": {"lr": [0.1], "model.lr": [1]}}, "unknown key 'model.lr'"),
    ({"factors": {"norm": ["batch"], "model.norm": ["none"]}}, "the factor 'model.norm' stands twice"),
    ({"factors": {"recipe": {"a": 3}}}, "is no mapping"),
    ({"factors": {"recipe": {"a": {"lr": 0.1}}, "lr": [0.1, 0.2]}}, "two factors set 'lr'"),
    ({"factors": {"recipe": {"a": {"sede": 3}}}}, "unknown key 'sede'"),
    ({"factors": {"lr": {"\x1b[31m": 0.1}}}, "is no name for a level"),
    ({"model": None}, "names no model"),
    ({"model": "resnet.pockte"}, "resnet.pockte"),
    ({"factors": {"model": ["resnet.pocket"]}}, "the model is given and is a factor"),
    ({"recipe": {**RECIPE, "lrr": 1}}, "unknown key 'lrr'. Did you mean 'lr'"),
    ({"recipe": {**RECIPE, "seed": 1}}, "recipe cannot set 'seed'. Give `seeds`"),
    ({"recipe": {**RECIPE, "base": "fats94"}}, "fats94"),
    ({"recipe": {**RECIPE, "base": 3}}, "base is '3'"),
    ({"recipe": {**RECIPE, "batch_size": 1000}}, "batches of 1000 images are larger"),
    ({"hold": {"weight": 3}}, "hold has an unknown key 'weight'"),
    ({"hold": {"params": "equal"}}, "params is 'equal'"),
    ({"hold": {"params": -3}}, "params is '-3'"),
    ({"hold": {"params": 10_000_000_000}}, "10,000,000,000"),
    ({"hold": {"tolerance": 2}}, "tolerance is '2'"),
    ({"recipe": NO_BUDGET, "hold": {"steps": 5, "minutes": 1}}, "cannot both be equal"),
    ({"hold": {"minutes": 1}}, "the budget stands in recipe and in hold"),
    ({"recipe": NO_BUDGET, "hold": {"minutes": "first"}}, "minutes is 'first'"),
    ({"hold": {"steps": 7}}, "has 6 steps where 7 are held equal"),
    ({"hold": {"params": 30_000}, "factors": {"width": [0.25, 0.5]}}, "cannot be held equal while the width is a factor"),
    ({"compare": "some"}, "compare is 'some'"),
    ({"compare": [["lr=0.001", "lr=0.02"]]}, "there is no variant called 'lr=0.02'"),
    ({"compare": [["lr=0.001", "lr=0.001"]]}, "has lr=0.001 against itself"),
    ({"factors": {"momentum": [0.5, 0.9]}}, "differ in momentum alone, which does nothing in this recipe"),
    ({"compare": [["lr=0.001", "lr=0.01"], ["lr=0.01", "lr=0.001"]]}, "twice"),
    ({"factors": {"dropout": {"none": 0.0, "nothing": 0.0}}}, "are the same recipe"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_what_cannot_be_is_refused_in_a_line(change, said):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        plan_of(**change)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("plan.yaml")


def test_what_a_variant_cannot_be_is_told_with_the_plan_the_variant_and_the_key():
    with pytest.raises(UserError) as caught:
        plan_of(factors={"cutout": [0, 64]})
    assert str(caught.value).startswith("plan.yaml: cutout=64: a cutout of 64 pixels does not fit images of")
    with pytest.raises(UserError) as caught:
        plan_of(recipe={**RECIPE, "batch_size": 1000})
    assert str(caught.value).startswith("plan.yaml: lr=0.001: batches of 1000 images are larger")
    assert "batch_size" in caught.value.fix
    with pytest.raises(UserError) as caught:
        plan_of(recipe={**RECIPE, "minutes": 2})
    assert caught.value.fix == "Give either epochs or minutes, not both."


def test_pictures_without_splits_are_parted_as_the_plan_says():
    parted = replace(small_data(), description=f"pictures; {NO_SPLITS} as asked")
    plan = plan_of(recipe={**RECIPE, "validation": 0.3}, data=parted)
    assert {variant.recipe.parted for variant in plan.variants} == {0.3}
    assert {variant.recipe.parted for variant in plan_of(recipe={**RECIPE, "validation": 0.3}).variants} == {None}
    assert {variant.recipe.parted for variant in plan_of(data=parted).variants} == {None}
    with pytest.raises(UserError, match="recipe cannot set 'parted'"):
        plan_of(recipe={**RECIPE, "parted": 0.3})
