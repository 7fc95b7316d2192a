"""Receptive fields as followed on the meta device, against gradients of the same networks with real numbers."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convatlas.errors import UserError
from convatlas.inspection.receptive import Follower
from convatlas.inspection.trace import trace
from convatlas.models.papers import PAPERS
from convatlas.models.registry import MODELS, create_model, list_models

from .measuring import gradient_hull

CHANNELS, SIZE = 3, 41


class Does(nn.Module):
    """A network of layers by name, and what it does with them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.does = forward

    def forward(self, x):
        return self.does(x, *self.layers.values())


def follow(module, shape):
    """What the units of a module's output depend on, for an image (C, H, W)."""
    image = torch.empty(1, *shape, device="meta")
    follower = Follower(image)
    with follower, torch.no_grad():
        output = deepcopy(module).to("meta").eval()(image)
    return follower, output


def followed(module, shape=(CHANNELS, SIZE, SIZE)):
    follower, output = follow(module, shape)
    units = follower.units(output)
    assert units.shape == tuple(output.shape)
    return units


def expected_hull(region, image, row, column):
    """The region of the unit in `row` and `column`, as far as the image goes; None where it is empty."""
    sides = []
    for extent, at, pixels in zip((region.rows, region.columns), (row, column), image, strict=True):
        start, stop = extent.start + at * extent.jump, extent.stop + at * extent.jump
        sides.append((max(start, 0), min(stop, pixels)))
    return None if any(start >= stop for start, stop in sides) else tuple(sides)


def agree(module, shape=(CHANNELS, SIZE, SIZE), *, each_channel=True):
    """Compare two units in the middle, and of all channels, with their gradients."""
    units = followed(module, shape)
    _, channels, rows, columns = units.shape
    which = units.which.expand(1, channels, *units.which.shape[2:])
    for row, column in {(rows // 2, columns // 2), (rows // 2 - 1, min(columns // 2 + 2, columns - 1))}:
        for channel in range(channels):
            region = units.regions[which[0, channel, 0, 0]]
            assert gradient_hull(module, shape, (0, channel, row, column)) == expected_hull(region, units.image, row, column)
    return units


def fields(units):
    return sorted({(region.rows.receptive_field, region.columns.receptive_field) for region in units.regions})


def conv(cin, cout, kernel, **options):
    return nn.Conv2d(cin, cout, kernel, bias=False, **options)


WINDOWS = {
    "one": (conv(3, 4, 3), [(3, 3)]),
    "strided and padded": (nn.Sequential(conv(3, 4, 7, stride=2, padding=3), nn.ReLU(), conv(4, 2, 3, stride=2)), [(11, 11)]),
    "uneven": (nn.Sequential(conv(3, 4, (3, 5), stride=(2, 1), padding=(0, 2)), conv(4, 2, (1, 4))), [(3, 8)]),
    "dilated": (nn.Sequential(conv(3, 4, 3, dilation=2, padding=2), conv(4, 2, 3, dilation=(3, 1))), [(11, 7)]),
    "grouped": (nn.Sequential(conv(3, 4, 3), conv(4, 8, 3, groups=2), conv(8, 8, 3, groups=8)), [(7, 7)]),
    "pooled, rounded up": (nn.Sequential(conv(3, 2, 3), nn.MaxPool2d(3, 2, ceil_mode=True), conv(2, 2, 3)), [(9, 9)]),
    "averaged": (nn.Sequential(nn.AvgPool2d(3, 2, 1), conv(3, 2, 2), nn.AvgPool2d((1, 2))), [(5, 7)]),
    "padding same, even kernel": (nn.Sequential(conv(3, 2, 3, padding="same"), conv(2, 2, 5, padding="same")), [(7, 7)]),
    "mirrored padding": (nn.Sequential(conv(3, 2, 3, padding=1, padding_mode="reflect"), conv(2, 2, 3)), [(5, 5)]),
    "adaptive, evenly": (nn.Sequential(conv(3, 2, 2), nn.AdaptiveAvgPool2d(8)), [(6, 6)]),
    "adaptive, same size": (nn.Sequential(conv(3, 2, 2), nn.AdaptiveAvgPool2d(40)), [(2, 2)]),
    "a norm by running statistics": (nn.Sequential(conv(3, 2, 3), nn.BatchNorm2d(2), nn.Hardswish(), conv(2, 2, 3)), [(5, 5)]),
    "response norm": (nn.Sequential(conv(3, 7, 3), nn.LocalResponseNorm(5), conv(7, 2, 3)), [(5, 5)]),
    "rates": (nn.Sequential(conv(3, 2, 3), nn.Dropout(0.5), nn.PReLU(2), nn.LogSigmoid()), [(3, 3)]),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name):
    module, sides = WINDOWS[name]
    assert fields(agree(module)) == sides


def branches(x, a, b, c):
    return torch.cat([a(x), b(x), c(x)], dim=1)


def inverted(x, spatial, norm, expand, project):
    y = spatial(x).permute(0, 2, 3, 1)
    return x + project(F.gelu(expand(norm(y)))).permute(0, 3, 1, 2)


def option_a(x, first, second):
    shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
    return shortcut + second(first(x))


def shuffled(x, first, second):
    """ShuffleNet: half of the channels pass by, and are mixed in afterwards."""
    left, right = first(x).chunk(2, dim=1)
    y = torch.cat([left, second(right)], dim=1)
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def added_in_place(x, first, second):
    y = first(x)
    y += second(x)
    return F.relu(y, inplace=True)


def picked(x, first, second):
    y = torch.stack(torch.cat([first(x)[:, [1, 0, 1]], second(x)], dim=1).unbind(1)[::-1], dim=1)
    return torch.cat([y[:, 1:4:2], y.flip(1)[:, -1:], y[:, 2].unsqueeze(1)], 1)


SHAPES = {
    "branches": (
        Does(branches, a=conv(3, 2, 1), b=conv(3, 1, 3, padding=2, dilation=2), c=conv(3, 1, (3, 7), padding=(1, 3))),
        [(1, 1), (3, 7), (5, 5)],
    ),
    "branches, then depthwise": (
        nn.Sequential(
            Does(branches, a=conv(3, 2, 1), b=conv(3, 1, 3, padding=1), c=nn.MaxPool2d(5, 1, 2)), conv(6, 6, 3, groups=6)
        ),
        [(3, 3), (5, 5), (7, 7)],
    ),
    "branches, then groups": (
        nn.Sequential(
            Does(branches, a=conv(3, 2, 1), b=conv(3, 1, 3, padding=1), c=conv(3, 3, 5, padding=2)), conv(6, 4, 1, groups=2)
        ),
        [(3, 3), (5, 5)],
    ),
    "branches, mixed": (
        nn.Sequential(Does(branches, a=conv(3, 2, 1), b=conv(3, 1, 3, padding=1), c=conv(3, 1, 5, padding=2)), conv(4, 2, 1)),
        [(5, 5)],
    ),
    "branches that begin at different pixels": (
        Does(lambda x, a, b: a(x)[:, :, 3:-3, 3:-3] + b(x), a=conv(3, 2, 1), b=conv(3, 2, 7)),
        [(7, 7)],
    ),
    "shifted branches": (
        Does(lambda x, a, b: a(x) + b(F.pad(x, (2, 0, 0, 2))), a=conv(3, 2, 1), b=conv(3, 2, 3)),
        [(3, 3)],
    ),
    "space to depth": (
        Does(lambda x, a: a(torch.cat([x[..., ::2, :-1:2], x[..., ::2, 1::2]], dim=1)), a=conv(6, 2, 3)),
        [(5, 6)],
    ),
    "rows and columns last": (
        Does(inverted, s=conv(3, 3, 7, padding=3, groups=3), n=nn.LayerNorm(3), e=nn.Linear(3, 12), p=nn.Linear(12, 3)),
        [(7, 7)],
    ),
    "turned": (
        Does(lambda x, a, b: b(a(x).transpose(2, 3)).transpose(-1, -2), a=conv(3, 2, (3, 1)), b=conv(2, 2, (5, 1))),
        [(3, 5)],
    ),
    "option A": (
        Does(option_a, a=conv(3, 6, 3, stride=2, padding=1), b=conv(6, 6, 3, padding=1)),
        [(7, 7)],
    ),
    "shuffled": (Does(shuffled, a=conv(3, 4, 1), b=conv(2, 2, 3, padding=1)), [(1, 1), (3, 3)]),
    "torch's own shuffle": (
        nn.Sequential(Does(branches, a=conv(3, 2, 1), b=conv(3, 1, 3, padding=1), c=nn.MaxPool2d(5, 1, 2)), nn.ChannelShuffle(2)),
        [(1, 1), (3, 3), (5, 5)],
    ),
    "in place": (Does(added_in_place, a=conv(3, 2, 1), b=conv(3, 2, 5, padding=2)), [(5, 5)]),
    "picked channels": (Does(picked, a=conv(3, 2, 1), b=conv(3, 2, 3, padding=1)), [(1, 1), (3, 3)]),
    "gated linear unit": (
        Does(lambda x, a, b: F.glu(torch.cat([a(x), b(x)], 1), dim=1), a=conv(3, 2, 1), b=conv(3, 2, 3, padding=1)),
        [(3, 3)],
    ),
    "channels mixed by einsum": (
        Does(lambda x, a: torch.einsum("nchw,dc->ndhw", a(x), torch.ones(5, 2, dtype=x.dtype, device=x.device)), a=conv(3, 2, 3)),
        [(3, 3)],
    ),
    "channels normalised": (
        Does(lambda x, a, b: F.normalize(torch.cat([a(x), b(x)], 1), dim=1), a=conv(3, 2, 1), b=conv(3, 1, 3, padding=1)),
        [(3, 3)],
    ),
    "flattened and back": (
        Does(lambda x, a, b: b(a(x).flatten(2).mul(2).unflatten(2, (39, 39))), a=conv(3, 2, 3), b=conv(2, 2, 3)),
        [(5, 5)],
    ),
    "padded channels": (Does(lambda x, a: F.pad(a(x), (1, 1, 0, 0, 1, 0)), a=conv(3, 1, 3)), [(0, 0), (3, 3)]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_done_between_layers(name):
    module, sides = SHAPES[name]
    assert fields(agree(module)) == sides


def squeeze_excite(x, a, b):
    y = a(x)
    return y * torch.sigmoid(b(y.mean((2, 3), keepdim=True)))


EVERYWHERE = {
    "squeeze and excitation": Does(squeeze_excite, a=conv(3, 2, 3), b=conv(2, 2, 1)),
    "adaptive squeeze": Does(lambda x, a, p: x * a(p(x)), a=conv(3, 3, 1), p=nn.AdaptiveAvgPool2d(1)),
    "sum of all": Does(lambda x, a: a(x) * x.sum((2, 3))[:, :, None, None], a=conv(3, 3, 1)),
    "gate over channels": Does(
        lambda x, a: x * a(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2)[..., None], a=nn.Conv1d(1, 1, 3, padding=1)
    ),
    "group norm": nn.Sequential(conv(3, 4, 3), nn.GroupNorm(2, 4), nn.AvgPool2d(2)),
    "instance norm": nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4)),
    "norm by the batch's statistics": nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    "layer norm over all": nn.Sequential(conv(3, 4, 2), nn.LayerNorm((4, 40, 40))),
    "softmax over all positions": Does(lambda x, a: a(x).flatten(2).softmax(-1).view(1, 2, SIZE, SIZE), a=conv(3, 2, 1)),
    "global response norm": Does(
        lambda x, a: x * (g := x.norm(p=2, dim=(2, 3), keepdim=True)) / g.mean(1, keepdim=True), a=nn.Identity()
    ),
}


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_sees_the_whole_image(name):
    units = agree(EVERYWHERE[name])
    assert units.sees_all


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(2 * 39 * 39, 5)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5)),
        nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(98, 5)),
        Does(lambda x, a: a(x.mean((2, 3))), a=nn.Linear(2, 5)),
        Does(lambda x, a: a(x.amax(3).amax(2)), a=nn.Linear(2, 5)),
        Does(lambda x, a: a(x.permute(0, 2, 3, 1).reshape(1, -1)), a=nn.Linear(2 * 39 * 39, 5)),
        nn.Sequential(nn.Conv2d(2, 3, 39), nn.Flatten(), nn.Linear(3, 5)),
    ],
    ids=["linear", "pooled", "pooled unevenly", "mean", "row by row", "positions first", "convolution"],
)
def test_heads_see_the_whole_image(head):
    follower, output = follow(nn.Sequential(conv(3, 2, 3), head), (CHANNELS, SIZE, SIZE))
    assert tuple(output.shape) == (1, 5)
    assert follower.units(output).sees_all
    assert follower.sight(output).jump is None


def test_what_a_stride_leaves_out_is_not_the_whole_image():
    """Of 10 pixels, a stride of 3 with a kernel of 2 reads pixels 0 to 7."""
    units = followed(nn.Sequential(conv(1, 1, 2, stride=3), nn.AdaptiveAvgPool2d(1)), (1, 10, 11))
    (region,) = units.regions
    assert (region.rows.start, region.rows.stop) == (0, 8)
    assert region.columns.is_whole, "of 11 pixels it reads all"


def test_pooling_to_a_grid_that_does_not_divide_has_a_region_for_each_unit():
    """8 rows onto 5: windows of 2 or 3 units, as torch lays them."""
    module = nn.Sequential(conv(1, 1, 3), nn.AdaptiveAvgPool2d((5, 4)))
    units = followed(module, (1, 10, 10))
    for row in range(5):
        for column in range(4):
            region = units.regions[units.which[0, 0, row, 0 if units.which.shape[3] == 1 else column]]
            assert gradient_hull(module, (1, 10, 10), (0, 0, row, column)) == expected_hull(region, (10, 10), 0, column)


UNKNOWN = {
    "interpolated": Does(lambda x, a: F.interpolate(a(x), scale_factor=2), a=conv(3, 2, 3)),
    "transposed": nn.Sequential(conv(3, 2, 3), nn.ConvTranspose2d(2, 2, 2, stride=2)),
    "rolled": Does(lambda x, a: a(x).roll(1, 2), a=conv(3, 2, 3)),
    "windows by a view": Does(lambda x, a: a(x).view(1, 2, 13, 3, 39), a=conv(3, 2, 3)),
    "cumulated": Does(lambda x, a: a(x).cumsum(2), a=conv(3, 2, 3)),
    "attention": Does(lambda x, a: (y := a(x).flatten(2)).transpose(1, 2) @ y, a=conv(3, 2, 3)),
    "rows joined": Does(lambda x, a: torch.cat([a(x), a(x)], dim=2), a=conv(3, 2, 3)),
    "turned and added": Does(lambda x, a: a(x) + a(x).transpose(2, 3), a=conv(3, 2, 3)),
    "two resolutions": Does(lambda x, a: a(x)[:, :, :10, :10] + a(x)[:, :, ::2, ::2][:, :, :10, :10], a=conv(3, 2, 3)),
    "written into a part": Does(lambda x, a: _write(x.new_zeros(1, 3, 39, 39), a(x)), a=conv(3, 2, 3)),
    "a part overwritten": Does(lambda x, a: _write(a(x), x[:, :1, 1:-1, 1:-1]), a=conv(3, 2, 3)),
    "a part changed, then the other used": Does(lambda x, a: _change_a_part(a(x), x), a=conv(3, 3, 3, padding=1)),
    "picked from branches by a list": Does(lambda x, a: torch.cat([a(x), x], dim=1)[:, [0, 4]], a=conv(3, 2, 3, padding=1)),
    "weights from the image": Does(lambda x, a: F.conv2d(x, a(x)[:, :, :3, :3].expand(2, 3, 3, 3)), a=conv(3, 3, 3)),
}


def _write(target, part):
    target[:, : part.shape[1]] = part
    return target


def _change_a_part(y, x):
    first, _ = y.split([1, 2], dim=1)
    first.mul_(x.mean((2, 3), keepdim=True)[:, :1])
    return y


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_followed_is_never_guessed(name):
    module = nn.Sequential(UNKNOWN[name], nn.ReLU())
    follower, output = follow(module, (CHANNELS, SIZE, SIZE))
    sight = follower.sight(output)
    assert (sight.receptive_field, sight.jump) == (None, None)
    assert sight.unfollowed
    with pytest.raises(UserError):
        follower.units(output)


def test_what_sees_all_sees_all_whatever_is_done_with_it():
    pooled = Does(
        lambda x, a: a(F.interpolate(F.adaptive_avg_pool2d(x, 1), size=(9, 9), mode="bilinear")), a=conv(3, 2, 3, padding=1)
    )
    assert followed(pooled).sees_all


def test_parameters_and_constants_depend_on_nothing():
    follower, output = follow(Does(lambda x, a: torch.ones_like(x) * a.weight.sum(), a=conv(1, 1, 1)), (3, 8, 8))
    assert follower.sight(output).receptive_field == 0


def test_a_part_written_with_what_it_was_stays_known():
    """ReLU in place on a view changes no dependence, so that the rest of the tensor is still known."""
    module = Does(lambda x, a: torch.cat([(y := a(x))[:, :1].relu_(), y], dim=1), a=conv(3, 2, 3))
    assert fields(agree(module)) == [(3, 3)]


# The atlas


@pytest.mark.parametrize("name", list_models("*.pocket"))
def test_pocket_members_against_gradients(name):
    """On an image that the fields fit into; a padded image, where a fixed size of head does not matter: stages only."""
    whole = create_model(name, num_classes=10, image_size=32)
    module = nn.Sequential(whole.stem, whole.stages)
    largest = max(fields(followed(module, (3, 96, 96))), key=lambda sides: sides[0] or 0)[0]
    size = 64 if largest is None else -(-(largest + 64) // 16) * 16
    units = followed(module, (3, size, size))
    row = units.shape[2] // 2
    hulls = [expected_hull(region, units.image, row, row) for region in units.regions]
    expected = tuple((min(hull[side][0] for hull in hulls), max(hull[side][1] for hull in hulls)) for side in (0, 1))
    assert gradient_hull(module, (3, size, size), (0, None, row, row)) == expected
    inside = all(0 < start < stop < size for start, stop in expected)
    assert inside or largest is None, "the image is too small for the test to say anything"


KNOWN = {
    "resnet18": 435,
    "resnet50": 427,
    "vgg16": 212,
    "googlenet": 379,
    "densenet121": 2071,
    "convnext_tiny": 1688,
    "alexnet": 195,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_receptive_fields(name):
    """Of the last stages. ResNets: measured by gradients; others: worked out window by window, by hand or by others (DESIGN)."""
    with torch.device("meta"):
        model = create_model(name).eval()
    follower, output = follow(nn.Sequential(model.stem, model.stages), (3, 224, 224))
    sight = follower.sight(output)
    assert (sight.receptive_field, sight.jump) == (KNOWN[name], 32)


def test_the_last_convolution_of_vgg16():
    with torch.device("meta"):
        features = create_model("vgg16").stages
    follower, output = follow(nn.Sequential(*features[:-1], *list(features[-1])[:-1]), (3, 224, 224))
    assert follower.sight(output).receptive_field == 196


def test_efficientnet_sees_the_whole_image_from_the_first_squeeze_on():
    with torch.device("meta"):
        layers = trace(create_model("efficientnet_b0"), (3, 224, 224)).layers
    fields = [layer.receptive_field for layer in layers]
    first = next(i for i, layer in enumerate(layers) if "squeeze_excite" in layer.name)
    assert fields[:first] == [3, 3, 3, 7, 7, 7]
    assert fields[first:] == [None] * (len(layers) - first)
    assert [layer.jump for layer in layers if layer.operation == "Conv2d"][-1] == 32


@st.composite
def networks(draw):
    """A stem and two branches of random windows that end on maps of one size, joined by adding or side by side."""

    def layers(count, stride):
        found = []
        for _ in range(draw(st.integers(1, count))):
            kernel, dilation = draw(st.tuples(st.integers(1, 4), st.integers(1, 2)))
            stride_here = draw(st.integers(1, stride))
            found.append(conv(2, 2, kernel, stride=stride_here, padding=draw(st.integers(0, 2)), dilation=dilation))
        return found

    stem = nn.Sequential(conv(1, 2, 3, padding=1), *layers(2, 2))
    left = nn.Sequential(*layers(2, 1))
    right = nn.Sequential(*layers(2, 1))
    join = draw(st.sampled_from(["add", "cat"]))

    def forward(x, stem, left, right):
        x = stem(x)
        a, b = left(x), right(x)
        size = [min(p, q) for p, q in zip(a.shape[2:], b.shape[2:], strict=True)]
        a, b = (y[:, :, : size[0], : size[1]] for y in (a, b))
        return a + b if join == "add" else torch.cat([a, b], dim=1)

    return Does(forward, stem=stem, left=left, right=right)


@settings(max_examples=40, deadline=None)
@given(networks())
def test_random_branches(module):
    agree(module, (1, 96, 90))


def test_every_landmark_family_has_a_pocket_member():
    assert {MODELS[name].family for name in list_models("*.pocket")} == set(PAPERS)
