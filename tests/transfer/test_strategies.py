"""What each strategy trains, of every family: which tensors learn, which layers stand still, and at which rates."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.training.lr_range import lr_range
from convatlas.training.optim import OPTIMIZERS
from convatlas.transfer.freezing import freeze
from convatlas.transfer.groups import classifier_of, groups_of, norms_and_biases
from convatlas.transfer.known import RATED, STRATEGIES, UNRATED
from convatlas.transfer.strategies import make_tuning_optimizer, opening
from convatlas.transfer.tuning import method_of

from .makers import bare_recipe, prepared, weights_file

POCKET = ["lenet", "alexnet", "vgg", "googlenet", "resnet", "densenet", "efficientnet", "convnext"]
LARGE = ["alexnet", "vgg11_bn", "googlenet", "densenet121", "efficientnet_b0", "efficientnet_lite0", "convnext_tiny"]
FAMILIES = [f"{family}.pocket" for family in POCKET] + [pytest.param(name, marks=pytest.mark.untraced) for name in LARGE]
NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
every_family = pytest.mark.parametrize("name", FAMILIES)


def network(name):
    with torch.device("meta"):
        return create_model(name, num_classes=7)


def opened(model, strategy, share=0.0, **tuning):
    """The network frozen as the strategy wants it at this share of the budget, and the names of what learns."""
    _, made = bare_recipe(strategy, **tuning)
    now = opening(model, made, share)
    freeze(model, now.trained, now.still)
    return {key for key, each in model.named_parameters() if each.requires_grad}


def names_in(model, *groups):
    """The names of the parameters in the groups with these names."""
    chosen = {id(each) for group in groups_of(model) if group.name in groups for each in group.parameters}
    return {name for name, each in model.named_parameters() if id(each) in chosen}


def auxiliary(model):
    own = {id(each) for each in model.auxiliary_parameters()}
    return {name for name, each in model.named_parameters() if id(each) in own}


def everything(model):
    return {name for name, _ in model.named_parameters()} - auxiliary(model)


@every_family
def test_groups_hold_every_parameter_once_from_the_top_down(name):
    model = network(name)
    groups = groups_of(model)
    held = [id(each) for group in groups for each in group.parameters]
    assert len(held) == len(set(held))
    assert {key for key, each in model.named_parameters() if id(each) in set(held)} == everything(model)
    order = [group.name for group in groups]
    stages = [each for each in order if each.startswith("stages.")]
    assert order[0] == "classifier"
    assert stages == sorted(stages, key=lambda each: int(each.partition(".")[2]), reverse=True), "the last stage first"
    assert order == ["classifier", *(["head"] if "head" in order else []), *stages, *(["stem"] if "stem" in order else [])]
    assert order[-1] == "stem" or not list(model.stem.parameters())
    assert names_in(model, "classifier") == {"head.classifier.weight", "head.classifier.bias"}
    assert classifier_of(model).out_features == 7


@every_family
def test_probe_trains_two_tensors_and_lets_nothing_else_move(name):
    model = network(name)
    assert opened(model, "probe") == {"head.classifier.weight", "head.classifier.bias"}
    for key, module in model.named_modules():
        if isinstance(module, (*NORMS, nn.Dropout)):
            assert not module.training, key
    assert classifier_of(model).training


@every_family
@pytest.mark.parametrize("strategy", ["full", "layer-decay", "l2-sp", "scratch"])
def test_full_trains_all_but_what_fine_tuning_does_not_use(name, strategy):
    model = network(name)
    assert opened(model, strategy) == everything(model)
    still = {key for key, module in model.named_modules() if not module.training}
    assert all(key.startswith("auxiliary") for key in still)
    dropouts = [module for key, module in model.head.named_modules() if isinstance(module, nn.Dropout)]
    assert all(module.training for module in dropouts)


@every_family
def test_bn_bias_trains_norms_biases_and_the_classifier_only(name):
    model = network(name)
    wanted = {"head.classifier.weight"}
    for prefix, module in model.named_modules():
        for own, _ in module.named_parameters(recurse=False):
            if isinstance(module, NORMS) or own == "bias":
                wanted.add(f"{prefix}.{own}")
    learning = opened(model, "bn-bias")
    assert learning == wanted - auxiliary(model)
    convolutions = {f"{key}.weight" for key, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert not learning & convolutions
    chosen = norms_and_biases(model)
    assert len(chosen) == len({id(each) for each in chosen})


@every_family
@pytest.mark.parametrize("stages", [1, 2])
def test_last_stages_trains_the_last_ones_and_freezes_the_rest(name, stages):
    model = network(name)
    order = [group.name for group in groups_of(model) if group.name.startswith("stages.")]
    learning = opened(model, "last-stages", stages=stages)
    assert learning == names_in(model, "classifier", "head", *order[:stages])
    assert learning > names_in(model, "classifier"), "something below the classifier"
    for key, module in model.named_modules():
        own = {f"{key}.{each}" for each, _ in module.named_parameters(recurse=False)}
        if isinstance(module, _BatchNorm):
            assert module.training is bool(own & learning), key
    assert not model.stem.training or not list(model.stem.parameters())


@every_family
def test_gradual_opens_from_the_top_down_and_is_open_from_the_half_on(name):
    model = network(name)
    order = [group.name for group in groups_of(model)]
    seen = []
    for step in range(101):
        learning = opened(model, "gradual", step / 100)
        depth = next(n for n in range(1, len(order) + 1) if learning == names_in(model, *order[:n]))
        seen.append(depth)
    assert seen[0] == 1
    assert all(0 <= after - before <= 1 for before, after in pairwise(seen)), "one group after the other"
    assert seen[49] == len(order) - 1
    assert all(depth == len(order) for depth in seen[50:])


@every_family
def test_lp_ft_opens_everything_once_the_probe_has_had_its_share(name):
    model = network(name)
    assert opened(model, "lp-ft", 0.39, probe_share=0.4) == names_in(model, "classifier")
    assert not any(module.training for stage in model.stages for module in stage.modules())
    assert opened(model, "lp-ft", 0.4, probe_share=0.4) == everything(model)
    assert all(module.training for module in model.stages.modules()), "what stood still moves again"


@every_family
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_the_optimizer_holds_what_ever_learns_once(name, strategy):
    model = network(name)
    recipe, tuning = bare_recipe(strategy, classifier_lr=10.0, weight_decay=0.02, optimizer="sgd", lr=0.1, layer_decay=0.5)
    optimizer = make_tuning_optimizer(model, recipe, tuning)
    called = {id(each): key for key, each in model.named_parameters()}
    held = [called[id(each)] for group in optimizer.param_groups for each in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == opened(model, strategy, 1.0)
    rates = {called[id(each)]: group for group in optimizer.param_groups for each in group["params"]}
    depth = {key: i for i, group in enumerate(groups_of(model)) for key in names_in(model, group.name)}
    for key, group in rates.items():
        own = 10.0 if key.startswith("head.classifier.") else 1.0
        assert group["lr_factor"] == own * (0.5 ** depth[key] if strategy == "layer-decay" else 1.0), key
        decayed = model.get_parameter(key).ndim > 1 and (strategy != "l2-sp" or key.startswith("head.classifier."))
        assert group["weight_decay"] == (0.02 if decayed else 0.0), key


def test_what_lay_frozen_keeps_no_old_gradient():
    model = create_model("resnet.pocket", num_classes=3)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    opened(model, "probe")
    assert all(
        (each.grad is None) is (key not in ("head.classifier.weight", "head.classifier.bias"))
        for key, each in model.named_parameters()
    )


def test_a_network_without_a_linear_classifier_is_refused_in_a_line():
    with torch.device("meta"):
        model = create_model("lenet5.paper")
    with pytest.raises(UserError, match="does not end in a linear classifier") as caught:
        groups_of(model)
    assert "\n" not in str(caught.value)


def test_every_strategy_says_what_it_trains_and_who_proposed_it():
    for known in STRATEGIES.values():
        assert known.what and known.source and known.lr > 0 and known.classifier_lr >= 1
    assert [name for name, known in STRATEGIES.items() if not known.pretrained] == ["scratch"]
    recipe, _ = bare_recipe("full")
    assert replace(recipe, tuning=None) != recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return weights_file(tmp_path_factory.mktemp("weights") / "pretrained.safetensors", "lenet.pocket")


def tried(weights, strategy, **more):
    """The steps of a range test."""
    recipe, data = prepared(strategy, weights, model="lenet.pocket", **more)
    return lr_range(recipe, data=data, low=1e-4, high=1e-2, steps=12, method=method_of(recipe, data)).steps


@pytest.mark.parametrize("strategy", ["lp-ft", "gradual"])
def test_the_range_test_is_of_all_that_the_strategy_ever_opens(weights, strategy):
    settings = {"classifier_lr": 2.0}
    assert tried(weights, strategy, settings=settings) == tried(weights, "full", settings=settings)
    assert tried(weights, "probe", policy="light", settings=settings) != tried(weights, "full", settings=settings)


def test_the_range_test_pulls_as_l2_sp_does(weights):
    assert tried(weights, "l2-sp", l2_sp=0.0) != tried(weights, "l2-sp", l2_sp=50.0)


def test_every_optimizer_is_known_to_fit_the_strategies_rates_or_not():
    assert {*RATED, *UNRATED, "muon"} == set(OPTIMIZERS)
