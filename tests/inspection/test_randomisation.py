"""Random weights in place of learnt ones, and how alike two maps are."""

import pytest
import torch
from torch import nn

from convatlas.inspection import saliency
from convatlas.inspection.randomisation import randomised, rank_correlation, structural_similarity
from convatlas.models.registry import create_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_random_weights_have_the_spread_of_the_learnt_ones():
    model = saliency.quiet_copy(create_model("resnet20", num_classes=4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = randomised(model, IMAGES, seed=0)
    again = randomised(model, IMAGES, seed=0)
    one, two = model.stages[2][1].conv1.conv.weight, other.stages[2][1].conv1.conv.weight
    assert abs(rank_correlation(one.flatten(1), two.flatten(1))) < 0.02
    assert two.std() == pytest.approx(one.std().item(), rel=0.02)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in other.state_dict().items())
    assert not torch.equal(two, randomised(model, IMAGES, seed=1).stages[2][1].conv1.conv.weight)


def test_only_the_last_layer_when_only_that_is_asked_for():
    model = saliency.quiet_copy(create_model("resnet20", num_classes=4))
    top = saliency.watch(model, IMAGES[:1]).top
    other = randomised(model, IMAGES, seed=0, only=top).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, other[name])}
    assert changed == {"head.classifier.weight"}, "its bias is the same everywhere"


def test_norms_are_measured_anew_for_random_weights():
    model = saliency.quiet_copy(create_model("resnet20", num_classes=4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e6)
    other, seen = randomised(model, IMAGES, seed=0), []
    other.stages.register_forward_hook(lambda module, args, output: seen.append(output.std().item()))
    other(IMAGES)
    assert 0.1 < seen[0] < 100


def test_similarities():
    first = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    assert rank_correlation(first, first**3) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert rank_correlation(first, torch.ones(20, 20)) == 0
    assert structural_similarity(first, 5 * first) == pytest.approx(1)
    assert structural_similarity(first, first.flip(0)) < 0.2
    assert structural_similarity(first, torch.zeros(20, 20)) < 0.2
