"""AlexNet as published: its counts tower by tower, what the towers see, its normalisation. References are by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import local_response_norm
from torch.utils.flop_counter import FlopCounterMode

from convatlas.inspection.trace import trace
from convatlas.layers.network import Request
from convatlas.models.alexnet import PIXEL_DEVIATION, VARIANTS, AlexNet, RawPixels, ResponseNorm

TOWER = {
    "stem.2": 48 * (11 * 11 * 3 + 1),
    "stages.0.0": 128 * (5 * 5 * 48 + 1),
    "stages.1.0": 192 * (3 * 3 * 256 + 1),
    "stages.1.2": 192 * (3 * 3 * 192 + 1),
    "stages.1.4": 128 * (3 * 3 * 192 + 1),
    "head.linear1": 2048 * (6 * 6 * 256 + 1),
    "head.linear2": 2048 * (4096 + 1),
}
"""The parameters of one of the two towers; only the last layer belongs to both."""


def build(name="alexnet.paper", num_classes=10, image_size=32):
    torch.manual_seed(0)
    return AlexNet(VARIANTS[name], Request(num_classes, 3, image_size)).eval()


def published(name="alexnet.paper", image_size=224):
    with torch.device("meta"):
        return build(name, num_classes=1000, image_size=image_size)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("layer", TOWER)
def test_parameters_of_each_layer_are_those_of_two_towers(layer):
    assert count(published().get_submodule(layer)) == 2 * TOWER[layer]


def test_parameters_in_all_are_60_965_224():
    model = published()
    assert count(model.head.classifier) == 1000 * (4096 + 1)
    assert count(model) == 2 * sum(TOWER.values()) + 4_097_000 == 60_965_224


def test_macs_count_only_what_is_connected():
    model = published()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() == 2 * trace(model, (3, 224, 224)).macs
    conv4 = next(layer for layer in trace(model, (3, 224, 224)).layers if layer.name == "stages.1.2")
    assert conv4.macs == 2 * 13 * 13 * 192 * 3 * 3 * 192


def test_maps_are_those_of_figure_2():
    shapes = {layer.name: layer.output_shape for layer in trace(published(), (3, 224, 224)).layers}
    assert [shapes[name] for name in TOWER] == [
        *((96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)),
        *((4096,), (4096,)),
    ]


@pytest.mark.parametrize("image_size", [65, 224, 225, 226, 227, 228])
def test_the_first_convolution_rounds_up(image_size):
    model = published(image_size=image_size)
    first = model.stem[:3](torch.empty(1, 3, image_size, image_size, device="meta"))
    assert first.shape[-1] == math.ceil((image_size - 11) / 4) + 1
    assert model(torch.empty(1, 3, image_size, image_size, device="meta")).shape == (1, 1000)


def test_windows_reach_over_the_right_and_lower_edge():
    _, pad, conv = published().stem[:3]
    x = torch.ones(1, 3, 8, 8)
    assert pad(x).shape == (1, 3, 11, 11)
    assert torch.equal(pad(x)[..., :8, :8], x)
    assert pad(x).sum() == x.sum()
    assert conv.padding == (0, 0)


def halves_changed(module, channels):
    """Which half of the output's channels changes when the first, then the second half of the input's does."""
    torch.manual_seed(1)
    x = torch.rand(2, channels, 15, 15)
    changed = []
    for half in (slice(None, channels // 2), slice(channels // 2, None)):
        other = x.clone()
        other[:, half] += 1
        with torch.no_grad():
            different = (module(x.clone()) != module(other)).flatten(2).any(2).any(0)
        changed.append([part.any().item() for part in different.chunk(2)])
    return changed


APART, TOGETHER = [[True, False], [False, True]], [[True, True], [True, True]]


def test_towers_meet_only_where_the_paper_says():
    model = build()
    conv3, conv4, conv5 = (model.stages[1][i : i + 2] for i in (0, 2, 4))
    assert halves_changed(model.stages[0], 96) == APART
    assert halves_changed(conv3, 256) == TOGETHER
    assert halves_changed(conv4, 384) == APART
    assert halves_changed(conv5, 384) == APART
    assert halves_changed(nn.Sequential(conv4, conv5, model.stages[1][6]), 384) == APART


def test_the_bare_name_has_one_tower():
    model = build("alexnet")
    assert halves_changed(model.stages[0], 64) == TOGETHER
    assert halves_changed(model.stages[1][2], 384) == TOGETHER


def by_hand(a, maps):
    """Section 3.3 for one image and pixel: the values of `maps` maps of one tower."""
    out = []
    for i in range(maps):
        nearest = range(max(0, i - 2), min(maps - 1, i + 2) + 1)
        out.append(a[i] / (2 + 1e-4 * sum(a[j] ** 2 for j in nearest)) ** 0.75)
    return out


def test_response_normalisation_is_the_papers_formula():
    torch.manual_seed(0)
    a = 100 * torch.randn(2, 14, 3, 4, dtype=torch.float64)
    b = ResponseNorm(2)(a)
    expected = [*by_hand(a[1, :7, 2, 3].tolist(), 7), *by_hand(a[1, 7:, 2, 3].tolist(), 7)]
    assert b[1, :, 2, 3].tolist() == pytest.approx(expected, rel=1e-12)
    assert b.shape == a.shape


def test_torchs_alpha_is_not_the_papers():
    a = torch.full((1, 5, 1, 1), 100.0)
    assert ResponseNorm(1)(a)[0, 2].item() == pytest.approx(100 / (2 + 5) ** 0.75)
    assert local_response_norm(a, 5, alpha=1e-4, beta=0.75, k=2.0)[0, 2].item() == pytest.approx(100 / (2 + 1) ** 0.75)


def test_images_enter_as_large_as_raw_pixels():
    deviations = (0.229, 0.224, 0.225)
    assert round(255 * sum(deviations) / 3) == PIXEL_DEVIATION == 58
    first, x = build().stem[:2], torch.randn(1, 3, 8, 8)
    assert torch.equal(first(x), first[1](58 * x))
    assert not any(isinstance(module, RawPixels) for module in build("alexnet").modules())


def test_normalisation_stands_between_relu_and_the_first_two_poolings():
    model = build()
    order = [type(module).__name__ for part in (model.stem, model.stages[0]) for module in part]
    assert order == ["RawPixels", *["Conv2d", "ReLU", "ResponseNorm", "MaxPool2d"] * 2]
    assert sum(isinstance(module, ResponseNorm) for module in model.modules()) == 2
    assert not any(isinstance(module, ResponseNorm) for module in build("alexnet").modules())


def test_weights_and_biases_begin_as_in_section_5():
    layers = [module for module in build().modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert [layer.bias.unique().tolist() for layer in layers] == [[0], [1], [0], [1], [1], [1], [1], [0]]
    for layer in layers:
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.001)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_features_begin_like_the_network_with_classes():
    hidden = build(num_classes=0).head.linear2
    assert hidden.bias.unique().tolist() == [1]


def test_dropout_silences_hidden_units():
    order = [name for name, _ in build().head.named_children()]
    assert order == ["pool", "flatten", "linear1", "relu1", "dropout1", "linear2", "relu2", "dropout2", "classifier"]
    taught = [name for name, _ in build("alexnet").head.named_children()]
    assert taught == ["pool", "flatten", "dropout1", "linear1", "relu1", "dropout2", "linear2", "relu2", "classifier"]


@pytest.mark.parametrize("name", VARIANTS)
def test_drop_rates_reach_both_layers(name):
    with torch.device("meta"):
        model = AlexNet(VARIANTS[name], Request(10, 3, 32, drop_rate=0.25))
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.25, 0.25]


def test_values_stay_close_under_autocast():
    model, x = build(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(x)
    torch.testing.assert_close(rounded.float(), exact, atol=0.02 * exact.abs().max().item(), rtol=0)
