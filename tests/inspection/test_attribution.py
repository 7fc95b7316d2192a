"""Attributions: against maps worked out by hand, with a check that known-bad maps fail, and everything left as it was."""

import base64
import builtins
import sys
import warnings
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from convatlas.errors import UserError
from convatlas.inspection import attribution, saliency
from convatlas.inspection.attribution import attribute
from convatlas.models.registry import create_model, list_models
from convatlas.records import codec
from convatlas.records.attribution import Attribution
from tests.inspection.strangers import ChannelsLast, Functional

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PICTURES = torch.randint(0, 256, (2, 3, 40, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
CAM = ("grad-cam",)
FAST = ("grad-cam", "integrated-gradients")


def small(classes=4):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


def ask(model, *, images=IMAGES, **options):
    settings = {"pictures": PICTURES[: len(images)], "names": ["a", "b"][: len(images)], "trained": False, "seeds": (0,)}
    return attribute(model, images, **{**settings, **options})


def pixels(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))))


def network_of(model):
    return saliency.quiet_copy(model)


def overwriting(model):
    return [name for name, module in model.named_modules() if getattr(module, "inplace", False)]


class InPlace(nn.Module):
    """Overwrites what a layer gave, by functions."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x)
        x += 1
        functional.relu_(x)
        return self.head(x.mean((2, 3)))


class Quadrant(nn.Module):
    """Class 0 is the mean of the upper left quarter, class 1 that of the lower right: what speaks for them is known."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, x):
        x = self.conv(x)
        return torch.stack([x[:, 0, :16, :16].mean((1, 2)), x[:, 0, 16:, 16:].mean((1, 2))], dim=1)


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion"])
@pytest.mark.parametrize("target", [0, 1])
def test_maps_lie_where_the_class_is(method, target):
    found = saliency.saliency(method, network_of(Quadrant()), torch.ones(1, 3, 32, 32), target=target, layer=None)
    inside = found.values[:14, :14] if target == 0 else found.values[-14:, -14:]
    assert inside.min() > 0
    assert found.values.sum() > 0
    outside = found.values[20:, 20:] if target == 0 else found.values[:12, :12]
    assert outside.abs().max() == 0


def test_integrated_gradients_explain_the_whole_logit():
    model, image = network_of(Quadrant()), torch.ones(1, 3, 32, 32)
    found = saliency.saliency("integrated-gradients", model, image, target=0, layer=None)
    assert found.values.sum() == pytest.approx(float(model(image)[0, 0]), rel=1e-5)
    assert found.gap < 1e-5
    assert "50 steps from an image of zeros" in found.settings


def test_occlusion_is_how_far_the_logit_falls():
    """One pixel counts, and a window either covers it or does not."""
    model = network_of(Quadrant())
    image = torch.zeros(1, 3, 32, 32)
    image[0, :, 4, 7] = 256.0
    found = saliency.saliency("occlusion", model, image, target=0, layer=None)
    assert found.settings == "window of zeros (after normalisation), 5x5 pixels, moved by 2x2"
    assert float(model(image)[0, 0]) == 3.0
    assert found.values[4, 7] == pytest.approx(3.0)
    assert found.values[20:].max() == 0


def test_grad_cam_against_the_papers_equations():
    model, image = network_of(small()), IMAGES[:1]
    maps = model[:4](image).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model[4:](maps)[0, 2], maps)
    expected = functional.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1))[0].detach()
    found = saliency.saliency("grad-cam", model, image, target=2, layer="3")
    assert torch.allclose(found.values, expected, atol=1e-6)
    assert found.layer == "3" and "maps of 3" in found.settings


@pytest.mark.parametrize("name", list_models("*.pocket"))
def test_every_family(name):
    model = create_model(name, num_classes=4, image_size=32)
    records = ask(model, images=IMAGES[:1], trained=True)
    assert [each.method for each in records] == list(saliency.METHODS)
    assert records[0].layer.startswith(("stages", "head"))
    assert records[1].layer is None and records[1].gap is not None and records[0].gap is None
    for each in records:
        assert codec.from_text(Attribution, codec.to_text(each), where="x") == each
        assert -1 <= each.check.lowest <= each.check.correlation <= each.check.highest <= 1
        assert pixels(each.picture).shape[1] == 240, "five times as many pixels, and a strip below"
        assert pixels(each.picture).shape[0] > 240


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "stages"),
        ("vgg11_bn", "stages"),
        ("alexnet", "stages"),
        ("googlenet", "stages"),
        ("densenet121", "head.relu"),
        ("efficientnet_b0", "head.act"),
        ("convnext_tiny", "stages"),
        ("efficientnet_lite0", "head.act"),
    ],
)
def test_the_layer_that_grad_cam_takes(name, layer):
    """With published stems, at the smallest images that leave a last map of more than one pixel."""
    network = network_of(create_model(name, num_classes=4, image_size=224))
    image = torch.randn(1, 3, 64, 96)
    passed = saliency.watch(network, image)
    assert saliency.choose_layer(network, passed, None) == layer
    assert all(each.startswith("head.") for each in passed.top)
    found = saliency.saliency("grad-cam", network, image, target=0, layer=layer)
    assert found.values.shape == ((1, 2) if name == "alexnet" else (2, 3))


def test_an_adaptive_pool_that_enlarges_is_passed_over():
    """VGG's pool makes 7x7 of whatever it gets: of one pixel, the same value everywhere."""
    layers = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 15), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(196, 4)
    assert saliency.watch(network_of(nn.Sequential(*layers)), IMAGES[:1]).maps == ("0",)


def test_side_branches_are_no_layers_for_grad_cam():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.aside, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x):
            y = self.conv(x)
            self.aside(x)
            return self.head(y.mean((2, 3)))

    assert saliency.watch(network_of(Aside()), IMAGES[:1]).maps == ("conv",)


@pytest.mark.parametrize("model", [InPlace(), small(), nn.Sequential(ChannelsLast(), nn.AdaptiveAvgPool2d(1), nn.Flatten())])
def test_strangers(model):
    records = ask(model, images=IMAGES[:1], trained=True)
    assert len(records) == 3
    assert all(each.check is not None for each in records)


def test_a_network_without_layers_has_no_grad_cam():
    model = Functional()
    assert len(ask(model, methods=("integrated-gradients", "occlusion"), trained=True)) == 4
    with pytest.raises(UserError, match="no layer gives a map.*Leave grad-cam out"):
        ask(model)


def test_in_place_layers_do_not_change_the_map():
    def built(inplace):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    one, two = (ask(built(inplace), methods=CAM, layer="0") for inplace in (True, False))
    assert one == two


@pytest.mark.parametrize(("mode", "outside"), [(True, torch.inference_mode), (False, torch.no_grad), (False, torch.enable_grad)])
def test_everything_is_left_as_it_was(mode, outside):
    model = create_model("efficientnet.pocket", num_classes=3, drop_rate=0.5).train(mode).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    in_place, hooked = overwriting(model), []
    model.stem.register_forward_hook(lambda *args: hooked.append(args))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with outside():
        images = IMAGES[:1] * 1.0
        records = ask(model, images=images, trained=True, methods=FAST)
    assert torch.equal(images, IMAGES[:1]) and not images.requires_grad and images.grad is None
    assert torch.equal(torch.rand(1), expected), "no random numbers were drawn"
    assert model.training == mode and all(module.training == mode for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "BatchNorm too"
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert len(model.stem._forward_hooks) == 1 and not any(m._forward_hooks for m in model.stages.modules())
    assert overwriting(model) == in_place and in_place
    assert records == ask(model.eval(), images=IMAGES[:1], trained=True, methods=FAST), (
        "the same whatever the mode and whoever calls"
    )


def test_a_network_built_without_gradients():
    with torch.inference_mode():
        model = small()
    assert ask(model, images=IMAGES[:1], methods=CAM)[0].layer == "3"


def test_no_warning_reaches_the_user(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask(small(), trained=True)
    assert not caught
    assert capfd.readouterr() == ("", "")


def test_target_and_order():
    model = small()
    likeliest = model.eval()(IMAGES).argmax(1).tolist()
    records = ask(model, methods=("occlusion", "grad-cam"))
    assert [each.target for each in records] == [likeliest[0]] * 2 + [likeliest[1]] * 2
    assert [(each.image, each.method) for each in records] == [
        (image, method) for image in "ab" for method in ("occlusion", "grad-cam")
    ]
    other = (likeliest[0] + 1) % 4
    assert {each.target for each in ask(model, target=other)} == {other}


def test_progress():
    shares = []
    ask(small(), trained=True, seeds=(0, 1), tick=shares.append)
    assert len(shares) == 2 * 3 * (1 + 2 * 2)
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_an_untrained_network_is_not_checked():
    (record,) = ask(small(), images=IMAGES[:1], methods=CAM)
    assert record.passed is None and record.check is None
    assert "nothing to check" in record.note


def test_a_map_of_few_pixels_is_not_checked(monkeypatch):
    def map_of(method, network, image, *, target, layer):
        return saliency.Saliency(torch.arange(15.0).view(3, 5), "the same always")

    monkeypatch.setattr(attribution, "saliency", map_of)
    (record,) = ask(small(), images=IMAGES[:1], methods=CAM, trained=True)
    assert record.passed is None
    assert record.note == "A map of 3x5 pixels is too small to check with random weights."


def test_layers_that_hand_on_what_they_get_give_no_name_to_it():
    layers = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    assert saliency.watch(network_of(nn.Sequential(*layers)), IMAGES[:1]).maps == ("0",)


def test_an_empty_map_is_said_to_be_empty():
    model = small()
    with torch.no_grad():
        model[6].weight.fill_(-1.0)
    (record,) = ask(model, images=IMAGES[:1], methods=CAM, trained=True)
    assert record.passed is None
    assert "finds nothing that speaks for the class" in record.note


def bad(which):
    """A map that does not depend on the weights, or not on those of the last layer."""

    def map_of(method, network, image, *, target, layer):
        values = image[0].abs().sum(0)
        if which == "last":
            values = values * torch.sin(image[0, 0] * 1e4 * float(network[0].weight.sum()))
        return saliency.Saliency(values - values.min(), "known to be bad")

    return map_of


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("all", "FAILS: hardly changes when the weights are randomised (rank correlation 1.00)"),
        ("last", "FAILS: hardly changes when the last layer is randomised (rank correlation 1.00)"),
    ],
)
def test_a_map_that_does_not_depend_on_the_weights_fails(monkeypatch, which, message):
    monkeypatch.setattr(attribution, "saliency", bad(which))
    (record,) = ask(small(), images=IMAGES[:1], methods=CAM, trained=True, seeds=(0, 1))
    assert record.passed is False
    assert record.note == message
    assert record.check.seeds == (0, 1)


def test_a_map_that_depends_on_the_weights_passes_and_the_picture_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(attribution, "captioned", lambda picture, text: said.append(text) or picture)

    def map_of(method, network, image, *, target, layer):
        generator = torch.Generator().manual_seed(int(1e6 * abs(float(network[6].weight.sum() + network[0].weight.sum()))))
        return saliency.Saliency(torch.rand(32, 32, generator=generator), "noise by the weights")

    monkeypatch.setattr(attribution, "saliency", map_of)
    (record,) = ask(small(), images=IMAGES[:1], methods=CAM, trained=True)
    assert record.passed is True
    assert abs(record.check.correlation) < 0.15 and abs(record.check.top) < 0.15 and record.check.ssim < 0.2
    assert said == [record.note]
    assert record.note.startswith("Changes when the weights are randomised: passed (rank correlation ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "stagse"}, r"there is no layer called 'stagse'. Did you mean stages"),
        ({"layer": "head"}, "the layer 'head' gives no map of more than one pixel that leads to the logits. Take stages"),
        ({"methods": ("gradcam",)}, "there is no method called 'gradcam'. Did you mean grad-cam"),
        ({"methods": ()}, "no methods or no seeds"),
        ({"target": 4}, "the class 4 does not exist. Give an index from 0 to 3"),
        ({"target": -1}, "the class -1 does not exist"),
        ({"names": ["a"]}, "2 images, 2 pictures and 1 names"),
        ({"pictures": PICTURES.float()}, "Give uint8 pictures"),
        ({"images": IMAGES[0]}, "Give floating-point images"),
        ({"images": IMAGES[:0], "names": []}, "Give floating-point images"),
        ({"images": IMAGES * float("nan")}, "logits are not finite"),
    ],
)
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        ask(create_model("resnet.pocket", num_classes=4), **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv2d(3, 4, 3), "gives no logits"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), "expected input.* to have 1 channels"),
        (nn.Bilinear(3, 4, 3), "takes 2 inputs"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), "no layer gives a map"),
        (small().to("meta"), "meta device"),
    ],
)
def test_refused_networks(model, message):
    with pytest.raises(UserError, match=message):
        ask(model)


def test_without_captum(monkeypatch):
    real = builtins.__import__

    def no_captum(name, *args, **kwargs):
        if name.startswith("captum"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("captum")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", no_captum)
    with pytest.raises(UserError, match=r"attributions need captum. Install it: pip install 'convatlas\[look\]'"):
        ask(small())
