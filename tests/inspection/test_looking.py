"""Feature maps, filters, activity and effective fields: of any module, and with everything left as it was."""

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convatlas.errors import UserError
from convatlas.inspection import rendering
from convatlas.inspection.activations import activations
from convatlas.inspection.effective_field import effective_fields
from convatlas.inspection.feature_maps import default_layers, feature_maps, maps_record
from convatlas.inspection.filters import first_filters
from convatlas.models.registry import create_model, list_models
from convatlas.records import codec
from convatlas.records.look import EffectiveField, Maps

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
POCKET = pytest.mark.parametrize("name", list_models("*.pocket"))


def stranger():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(5, 7, 3, padding=1), nn.ReLU(), nn.Flatten()
    )  # fmt: skip


def picture_of(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))))


# Feature maps


@POCKET
def test_maps_of_stages(name):
    model = create_model(name, image_size=32).eval()
    found = feature_maps(model, IMAGES)
    assert [each.layer for each in found] == [f"stages.{i}" for i in range(len(model.stages))]
    with torch.no_grad():
        x = model.stem(IMAGES)
        for stage, each in zip(model.stages, found, strict=True):
            x = stage(x)
            assert torch.equal(each.maps, x)
    record = maps_record(found[0], 1)
    assert codec.from_text(Maps, codec.to_text(record), where="x") == record
    assert picture_of(record.picture).ndim == 3


def test_maps_are_taken_before_anything_works_on_them_in_place():
    model = stranger()
    (found,) = feature_maps(model, IMAGES, layers=["0"])
    assert torch.equal(found.maps, model[0](IMAGES).detach())
    assert found.maps.min() < 0, "the ReLU after it works in place"


def test_layers_of_a_network_without_stages():
    assert default_layers(stranger(), IMAGES) == ["1", "4"]


def test_channels_last_maps_are_turned():
    model = create_model("convnext.pocket", image_size=32)
    (found,) = feature_maps(model, IMAGES, layers=["stages.0.block0.expand"])
    assert found.maps.shape == (3, 128, 16, 16)


def test_those_that_vary_most_are_shown():
    found = feature_maps(create_model("resnet.pocket"), IMAGES)[-1]
    record = maps_record(found, 0)
    spread = found.maps[0].flatten(1).std(1, correction=0)
    assert set(record.shown) == set(spread.argsort(descending=True)[:24].tolist())
    assert (record.channels, record.side) == (64, (8, 8))


class Reused(nn.Module):
    """The tutorials' network: one pooling, one ReLU, each called twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.pool, self.relu = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 5), nn.MaxPool2d(2), nn.ReLU()

    def forward(self, x):
        return self.pool(self.relu(self.conv2(self.pool(self.relu(self.conv1(x))))))


def test_a_layer_that_is_passed_twice_is_shown_once_and_as_it_was_last():
    assert default_layers(Reused(), IMAGES) == ["conv1", "relu", "pool"]
    assert [each.maps.shape[1:] for each in feature_maps(Reused(), IMAGES)] == [(4, 28, 28), (6, 10, 10), (6, 5, 5)]


def test_weights_that_are_computed_are_no_layers_and_are_left_alone():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert default_layers(model, IMAGES) == ["1"]
    assert [each.layer for each in activations(model, IMAGES)] == ["1"]
    first_filters(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_buffers_that_a_forward_writes_are_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("passes", torch.zeros(1))

        def forward(self, x):
            self.passes += 1
            return self.conv(x)

    model = Counting()
    activations(model, IMAGES)
    feature_maps(model, IMAGES)
    assert model.passes.item() == 0


# Filters


def test_filters_in_colour_and_grey():
    model = create_model("resnet18")
    record = first_filters(model)
    assert (record.layer, record.filters, record.kernel, record.shown, record.coloured) == ("stem.0.conv", 64, (7, 7), 64, True)
    grey = first_filters(create_model("lenet5", in_chans=1))
    assert not grey.coloured
    pixels = picture_of(grey.picture)
    assert (pixels[..., 0] == pixels[..., 1]).all()


def test_a_filters_colours_are_its_weights():
    conv = nn.Conv2d(3, 1, 1, bias=False)
    conv.weight.data = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    pixels = picture_of(first_filters(nn.Sequential(conv)).picture)
    assert tuple(pixels[10, 10]) == (255, 128, 0)


# Activity


def test_activity_in_numbers():
    model = stranger()
    model[3].weight.data[2] = 0
    model[3].bias.data[2] = -1
    found = {each.layer: each for each in activations(model, IMAGES)}
    assert list(found) == ["0", "1", "2", "3", "4"], "in the order of the data, without what does nothing"
    maps = model[:5](IMAGES)
    relu = found["4"]
    assert relu.mean == pytest.approx(maps.mean().item(), abs=1e-6)
    assert relu.std == pytest.approx(maps.std(correction=0).item(), abs=1e-6)
    assert relu.zeros == pytest.approx((maps == 0).float().mean().item())
    assert (relu.low, relu.high) == (0, pytest.approx(maps.max().item()))
    assert (relu.channels, relu.dead) == (7, 1 + sum((maps[:, c] == 0).all().item() for c in range(7) if c != 2))
    assert found["3"].dead == 1, "a channel that is -1 everywhere says nothing either"


@POCKET
def test_activity_of_every_family(name):
    found = activations(create_model(name, image_size=32), IMAGES)
    assert len(found) > 5
    assert all(0 <= each.zeros <= 1 and each.low <= each.mean <= each.high and each.dead <= each.channels for each in found)


# Effective fields


def test_a_field_of_equal_weights_is_as_wide_as_in_theory():
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    conv.weight.data.fill_(1.0)
    (field,) = effective_fields(nn.Sequential(conv), torch.rand(2, 1, 15, 15), layers=["0"])
    assert (field.theoretical, field.width, field.size, field.images) == (5, 5.0, (15, 15), 2)
    assert codec.from_text(EffectiveField, codec.to_text(field), where="x") == field


def test_a_deep_stack_uses_less_than_it_could():
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(12)))
    for conv in deep:
        conv.weight.data.fill_(1.0)
    (field,) = effective_fields(deep, torch.rand(1, 1, 41, 41), layers=["11"])
    assert field.theoretical == 25
    assert 10 < field.width < 20, "its profile is a bell"


@POCKET
def test_fields_of_every_family(name):
    model = create_model(name, image_size=32)
    for field in effective_fields(model, IMAGES):
        assert 0 < field.width <= 32
        assert field.theoretical is None or field.width <= field.theoretical


# Everything as it was


@pytest.mark.parametrize("act", [feature_maps, activations, effective_fields, lambda model, images: first_filters(model)])
@pytest.mark.parametrize("around", [torch.enable_grad, torch.inference_mode, torch.no_grad])
def test_nothing_is_left_behind(act, around):
    model = create_model("efficientnet.pocket", image_size=32, drop_rate=0.5).train()
    model.stages[1].eval()
    model.stem.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with around():
        act(model, IMAGES)
    assert torch.equal(torch.rand(1), expected), "no random numbers were drawn"
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(p.requires_grad for p in model.stem.parameters())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image, mask):
        return self.conv(image) * mask


REFUSED = {
    "an unknown layer": (lambda: feature_maps(create_model("resnet.pocket"), IMAGES, layers=["stages.O"]), "no layer called 'stages.O'. Did you mean stages"),
    "no layer at all": (lambda: feature_maps(stranger(), IMAGES, layers=[""]), "no layer called ''"),
    "a layer without maps": (lambda: feature_maps(stranger(), IMAGES, layers=["5"]), "the layer 5 gives no maps"),
    "a layer that is not passed": (lambda: feature_maps(Unused(), IMAGES, layers=["idle"]), "no image passes the layer idle"),
    "two inputs": (lambda: feature_maps(Two(), IMAGES), "fails on images of .3, 32, 32.*mask"),
    "no images": (lambda: activations(stranger(), IMAGES[:0]), "the images have the shape .0, 3, 32, 32."),
    "no batch axis": (lambda: activations(stranger(), IMAGES[0]), "the images have the shape .3, 32, 32."),
    "no values": (lambda: feature_maps(create_model("lenet.pocket").to("meta"), IMAGES), "meta device and has no values"),
    "no values of filters": (lambda: first_filters(create_model("lenet.pocket").to("meta")), "meta device and has no values"),
    "other channels": (lambda: activations(stranger(), IMAGES[:, :1]), "the network fails on images of"),
    "no convolution": (lambda: first_filters(nn.Linear(2, 2)), "the network has no convolution"),
    "an error of its own": (lambda: activations(Raising(), IMAGES), "the network fails on images of .3, 32, 32.: 'key'"),
    "gradients cut off": (lambda: effective_fields(CutOff(), IMAGES, layers=["conv"]), "no gradient comes back from the layer conv"),
    "no maps": (lambda: feature_maps(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), IMAGES), "no layer gives maps"),
    "a field of no map": (lambda: effective_fields(stranger(), IMAGES, layers=["5"]), "the layer 5 gives no maps"),
}  # fmt: skip


class Raising(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        raise KeyError("key")


class CutOff(Raising):
    def forward(self, x):
        with torch.no_grad():
            return self.conv(x)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.idle = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name):
    act, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


# Pictures


def test_colours_grow_lighter_in_equal_steps():
    ramp = rendering.coloured(torch.linspace(0, 1, 65)[None]).float()[:, 0]
    light = (0.2126 * (ramp[0] / 255) ** 2.2 + 0.7152 * (ramp[1] / 255) ** 2.2 + 0.0722 * (ramp[2] / 255) ** 2.2) ** (1 / 3)
    steps = light.diff()
    assert (steps > 0).all(), "read in grey, no two values change places"
    assert steps.max() / steps.mean() < 2


def test_pictures_survive_as_png():
    picture = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8)
    assert np.array_equal(picture_of(rendering.png_url(picture)), picture.permute(1, 2, 0).numpy())
    grey = torch.randint(0, 256, (9, 7), dtype=torch.uint8)
    assert np.array_equal(picture_of(rendering.png_url(grey)), grey.numpy())


def test_words_stand_below_the_picture_and_are_not_cut():
    picture = torch.zeros(3, 230, 230, dtype=torch.uint8)
    text = "changes when the weights are randomised: passed (rank correlation 0.08), and some more words to fill two lines"
    found = rendering.captioned(picture, text)
    assert torch.equal(found[:, :230], picture)
    strip = found[:, 230:].float().mean(0)
    assert strip.min() < 100, "words"
    assert (strip[:, :3] == 255).all()
    assert (strip[:, -3:] == 255).all(), "none runs over the edge"
    assert rendering.captioned(torch.zeros(3, 8, 8, dtype=torch.uint8), "small").shape[-1] >= 224


def test_a_map_without_differences_and_one_that_is_not_finite():
    assert rendering.coloured(torch.full((2, 2), 3.0)).unique().numel() == 3
    assert rendering.coloured(torch.tensor([[float("nan"), 1.0]])).shape == (3, 1, 2)


# What a stranger's forward may do


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return nn.functional.dropout(self.conv(x))


def test_random_numbers_drawn_by_the_forward_are_given_back():
    model = Drawing()
    state = torch.get_rng_state()
    feature_maps(model, IMAGES, layers=["conv"])
    assert torch.equal(torch.get_rng_state(), state)


def test_no_hook_is_left_when_a_later_layer_is_unknown():
    model = create_model("resnet.pocket")
    with pytest.raises(UserError, match="nope"):
        feature_maps(model, IMAGES, layers=["stages.0", "nope"])
    assert not any(module._forward_hooks for module in model.modules())


def test_channels_of_an_activation_between_channels_last_layers():
    found = {each.layer: each for each in activations(create_model("convnext.pocket", image_size=32), IMAGES)}
    assert found["stages.0.block0.act"].channels == found["stages.0.block0.expand"].channels == 128


def test_a_norm_over_whole_maps_keeps_its_channels():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.LayerNorm((5, 32, 32)))
    (found,) = feature_maps(model, IMAGES, layers=["1"])
    assert found.maps.shape == (3, 5, 32, 32)


def test_images_are_given_in_the_precision_of_the_weights():
    model = create_model("resnet.pocket")
    single, double = feature_maps(model, IMAGES), feature_maps(model.double(), IMAGES)
    assert torch.allclose(single[-1].maps, double[-1].maps, atol=1e-4)


def test_lazy_layers_stay_lazy():
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    with pytest.raises(UserError, match="lazy layers"):
        feature_maps(model, IMAGES)
    assert isinstance(model[0], nn.LazyConv2d)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x * 2 if x.sum() > 0 else x)


def test_a_field_whose_theory_is_not_known_says_so():
    (unknown,) = effective_fields(Branching(), IMAGES, layers=["conv"])
    assert (unknown.theoretical, unknown.known) == (None, False)
    squeezed = effective_fields(create_model("efficientnet.pocket", image_size=32), IMAGES)[-1]
    assert (squeezed.theoretical, squeezed.known) == (None, True), "squeeze-excitation sees the whole image"
