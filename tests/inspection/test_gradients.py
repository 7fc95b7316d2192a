"""Gradient flow: against gradients worked out by hand, and with everything left as it was."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from convatlas.errors import UserError
from convatlas.inspection.gradients import STARTS, changed, gradient_flow, gradient_similarity
from convatlas.models.registry import create_model, list_models
from convatlas.records import codec
from convatlas.records.gradients import GradientFlow

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


def small():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_norms_against_autograd():
    model = small()
    flow = gradient_flow(model, IMAGES, LABELS, name="small")
    maps = model[0](IMAGES)
    maps.retain_grad()
    logits = model[4](functional.relu(maps).mean((2, 3)))
    logits.retain_grad()
    loss = functional.cross_entropy(logits, LABELS)
    loss.backward()
    first, last = flow.layers
    assert flow.loss == pytest.approx(loss.item(), rel=1e-5)
    assert [layer.name for layer in flow.layers] == ["0", "4"]
    assert first.params == 112
    assert first.weight == pytest.approx(model[0].weight.norm().item(), rel=1e-5)
    assert first.weight_gradient == pytest.approx(model[0].weight.grad.norm().item(), rel=1e-4)
    assert first.activation == pytest.approx(maps.std(correction=0).item(), rel=1e-4), "before ReLU works in place"
    assert first.activation_gradient == pytest.approx(6 * maps.grad.pow(2).mean().sqrt().item(), rel=1e-4)
    assert last.activation_gradient == pytest.approx(6 * logits.grad.pow(2).mean().sqrt().item(), rel=1e-4)


def test_the_size_of_the_batch_does_not_count():
    model = small()
    twice = gradient_flow(model, IMAGES.repeat(2, 1, 1, 1), LABELS.repeat(2))
    for one, two in zip(gradient_flow(model, IMAGES, LABELS).layers, twice.layers, strict=True):
        assert two.activation_gradient == pytest.approx(one.activation_gradient, rel=1e-4)
        assert two.weight_gradient == pytest.approx(one.weight_gradient, rel=1e-4)


@pytest.mark.parametrize("name", list_models("*.pocket"))
def test_every_family(name):
    model = create_model(name, num_classes=3, image_size=32)
    flow = gradient_flow(model, IMAGES, LABELS, name=name)
    assert all(math.isfinite(layer.weight_gradient) and layer.weight > 0 for layer in flow.layers)
    assert flow.layers[0].name.startswith(("stem", "stages"))
    assert flow.layers[-1].name.startswith("head")
    assert codec.from_text(GradientFlow, codec.to_text(flow), where="x") == flow


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_everything_is_left_as_it_was(mode):
    model = create_model("efficientnet.pocket", num_classes=3, drop_rate=0.5).train(mode).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with torch.inference_mode():
        gradient_flow(model, IMAGES, LABELS)
    gradient_similarity(model, IMAGES[0], IMAGES[1])
    assert torch.equal(torch.rand(1), expected), "no random numbers were drawn"
    assert model.training == mode
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "BatchNorm too"
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def flow_of(name, **change):
    torch.manual_seed(0)
    images = torch.randn(32, 3, 32, 32)
    return gradient_flow(changed(create_model(name), **change), images, torch.arange(32) % 10)


def ratio(flow):
    return flow.layers[0].activation_gradient / flow.layers[-2].activation_gradient


def test_what_depth_does_to_gradients():
    """With BatchNorm they explode in a deep plain network, without it they vanish; with shortcuts they do neither."""
    assert ratio(flow_of("resnet56.plain", norm="own", start="own")) > 1000
    assert ratio(flow_of("resnet56.plain", norm="none", start="fan-in")) < 1e-6
    assert 0.1 < ratio(flow_of("resnet56", norm="own", start="own")) < 100
    assert 0.1 < ratio(flow_of("resnet56", norm="none", start="fan-in")) < 100
    assert flow_of("resnet56.plain", norm="none", start="torch").layers[0].activation_gradient == 0


def test_gradients_of_neighbours_are_alike_with_shortcuts_and_like_noise_without():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 32, 32)
    plain, residual = (gradient_similarity(create_model(name), first, second) for name in ("resnet56.plain", "resnet56"))
    assert abs(plain) < 0.1
    assert residual > 0.15
    assert gradient_similarity(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), first, second) == pytest.approx(1)


def test_changes():
    model = changed(create_model("resnet20"), norm="none", start="own")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    torch.manual_seed(0)
    deviations = {
        start: changed(create_model("resnet20"), norm="own", start=start).stages[2][1].conv1.conv.weight.std().item()
        for start in STARTS
    }
    assert deviations["fan-in"] == pytest.approx((9 * 64) ** -0.5, rel=0.02)
    assert deviations["torch"] == pytest.approx((3 * 9 * 64) ** -0.5, rel=0.02)
    assert deviations["own"] == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_a_weight_that_is_computed_counts_with_what_it_is_computed_from():
    torch.manual_seed(2)
    model = small()
    model[0] = nn.utils.parametrizations.spectral_norm(model[0])
    first = gradient_flow(model, IMAGES, LABELS).layers[0]
    assert first.weight_gradient > 0
    assert first.weight == pytest.approx(model[0].parametrizations.weight.original.norm().item(), rel=1e-5)


def test_images_take_the_precision_of_the_network():
    flow = gradient_flow(small().double(), IMAGES, LABELS)
    assert flow.loss == pytest.approx(gradient_flow(small(), IMAGES, LABELS).loss, rel=1e-5)
    assert abs(gradient_similarity(small().double(), IMAGES[0], IMAGES[1])) <= 1


class Two(nn.Module):
    def forward(self, image, mask):
        return image


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: gradient_flow(Two(), IMAGES, LABELS), "the network fails on images of .3, 32, 32.*mask"),
        (lambda: gradient_similarity(Two(), IMAGES[0], IMAGES[1]), "the network fails on images"),
        (lambda: gradient_similarity(nn.Conv2d(3, 4, 3), IMAGES[0], IMAGES[1]), "gives no logits"),
        (lambda: gradient_flow(small(), IMAGES[0], LABELS), r"the images have the shape \(3, 32, 32\)"),
        (lambda: gradient_flow(small(), IMAGES[:0], LABELS[:0]), r"the images have the shape \(0, 3, 32, 32\)"),
        (lambda: gradient_flow(small().to("meta"), IMAGES, LABELS), "on the meta device and has no values"),
        (lambda: gradient_flow(small(), IMAGES, LABELS - 1), "the labels are torch.int64"),
        (lambda: gradient_flow(small(), IMAGES, LABELS[:2]), r"the labels are torch.int64 of shape \(2,\)"),
        (lambda: gradient_flow(small(), IMAGES, LABELS.float()), "the labels are torch.float32"),
        (lambda: changed(small(), norm="no", start="own"), "norm is 'no'. Give own or none"),
        (lambda: changed(small(), norm="own", start="zero"), "start is 'zero'. Give own, fan-in, torch"),
        (lambda: gradient_flow(nn.Conv2d(3, 4, 3), IMAGES, LABELS), "gives no logits"),
        (lambda: gradient_flow(small(), IMAGES, LABELS + 1), "a label is 3, and there are 3 classes"),
    ],
)
def test_refused(act, message):
    with pytest.raises(UserError, match=message):
        act()
