"""Changing networks from outside: ours, and ones that know nothing of it."""

import pytest
import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.models.alterations import ACTIVATIONS, ChannelsLast, alter, alter_dropout, as_before, groups_for
from convatlas.models.registry import create_model


def small(name):
    torch.manual_seed(0)
    return create_model(name, num_classes=10, image_size=32).eval()


def kinds(model, *types):
    return [type(m) for m in model.modules() if isinstance(m, types)]


def altered(module, **settings):
    holder = nn.Sequential(module)
    alter(holder, settings, name="mine", initialise=as_before)
    return holder[0]


class Stranger(nn.Module):
    """Somebody's network: BatchNorm of maps and of vectors, a sigmoid gate, a shared activation, functions in forward."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.again = self.act
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.strided = nn.Conv2d(8, 12, 5, stride=2, padding=2)
        self.linear = nn.Linear(12, 6, bias=False)
        self.norm1 = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x = self.again(self.strided(x * self.gate(x)))
        return self.drop(self.norm1(self.linear(x.mean((2, 3)))))


# Norms


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.GroupNorm), ("group", nn.GroupNorm), ("instance", nn.InstanceNorm2d)])
def test_every_batchnorm_has_a_successor(norm, kind):
    model = small(f"resnet{{norm: {norm}}}")
    assert kinds(model, nn.BatchNorm2d) == []
    assert len(kinds(model, kind)) == len(kinds(small("resnet.pocket"), nn.BatchNorm2d))
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_layer_is_one_mean_and_variance_for_each_image():
    norm = small("resnet{norm: layer}").stages[0][0].conv1.norm
    y = norm(5 * torch.randn(4, 16, 8, 8) + 3)
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((1, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_of_the_kind_already_it_stays():
    for name in ("resnet", "convnext"):
        norm = "batch" if name == "resnet" else "layer"
        own, same = small(f"{name}.pocket"), small(f"{name}{{norm: {norm}}}")
        assert [type(m) for m in own.modules()] == [type(m) for m in same.modules()]


def test_without_norm_convolutions_have_the_bias():
    model = small("resnet{norm: none}")
    assert kinds(model, nn.BatchNorm2d) == []
    assert all(m.bias is not None and not m.bias.any() for m in model.modules() if isinstance(m, nn.Conv2d))


def test_densenet_without_norm_passes_on_what_it_was_given():
    """Its ReLU worked in place on the norm's output; without norm that is the layer's own input."""
    model, x = small("densenet{norm: none}"), torch.randn(2, 32, 8, 8)
    before = x.clone()
    with torch.no_grad():
        y = model.stages[0].layer0(x)
    assert torch.equal(x, before)
    assert torch.equal(y[:, :32], before)
    assert all(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))
    assert not any(m.inplace for m in model.modules() if isinstance(m, nn.ReLU))


def test_convnexts_norms_of_channels_last_become_batchnorm_of_the_same_values():
    model = small("convnext{norm: batch}").train()
    norm = model.stages[0].block0.norm
    assert isinstance(norm, ChannelsLast) and isinstance(model.stem[1], nn.BatchNorm2d)
    x = 5 * torch.randn(4, 6, 6, 32) + 3
    torch.testing.assert_close(norm(x), nn.BatchNorm2d(32, eps=1e-6)(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    vectors = torch.randn(4, 32)
    assert norm(vectors).shape == (4, 32)


def test_googlenets_auxiliary_heads_are_altered_too():
    model = small("googlenet{norm: layer, act: tanh}")
    assert kinds(model, nn.BatchNorm2d, nn.ReLU) == []
    assert len(model.auxiliary) == 2


def test_a_strangers_norms():
    model = altered(Stranger(), norm="none")
    assert kinds(model, nn.BatchNorm2d, nn.BatchNorm1d) == []
    assert model.conv.bias is not None and model.linear.bias is not None
    model = altered(Stranger(), norm="group")
    assert (model.norm.num_groups, model.norm1.num_groups) == (2, 1)
    assert model(torch.randn(2, 3, 9, 9)).shape == (2, 6)
    with pytest.raises(UserError, match=r"mine: 0.norm1 \(BatchNorm1d\) may see vectors"):
        altered(Stranger(), norm="instance")
    model = altered(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.LayerNorm([4, 5, 5])), norm="batch")
    assert kinds(model, nn.BatchNorm2d) == [nn.BatchNorm2d] * 2
    assert model(torch.randn(2, 3, 5, 5)).shape == (2, 4, 5, 5)


@pytest.mark.parametrize("module", [nn.LayerNorm([5, 5]), nn.LayerNorm([2, 4, 5, 5])])
def test_a_layernorm_over_something_else_is_refused(module):
    with pytest.raises(UserError, match="is a LayerNorm over"):
        altered(module, norm="batch")


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (7, 1), (8, 2), (16, 4), (17, 1), (64, 16), (128, 32), (192, 32), (100, 25)]
)
def test_groups(channels, groups):
    assert groups_for(channels) == groups


# Activations


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_has_a_successor(act):
    model = small(f"resnet{{act: {act}}}")
    new = kinds(model, *ACTIVATIONS.values())
    assert set(new) == {ACTIVATIONS[act], *([nn.Identity] if act != "none" else [])}
    assert model(torch.randn(1, 3, 32, 32)).isfinite().all()


def test_they_work_in_place_where_the_old_one_did():
    assert all(m.inplace for m in small("resnet{act: silu}").modules() if isinstance(m, nn.SiLU))
    assert not any(m.inplace for m in altered(nn.Sequential(nn.Tanh()), act="relu").modules() if isinstance(m, nn.ReLU))


def test_gates_stay():
    model = altered(Stranger(), act="tanh")
    assert kinds(model, nn.Sigmoid) == [nn.Sigmoid]
    assert model.act is model.again and isinstance(model.act, nn.Tanh)
    own = small("efficientnet{act: relu}")
    assert kinds(own, nn.SiLU) == []
    assert isinstance(own.stages[0][0].residual.squeeze_excite.act, nn.ReLU)


def test_sigmoids_that_are_all_there_is_are_activations():
    assert kinds(altered(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()), act="relu"), nn.Sigmoid) == []


# Kernels


def test_kernels_change_and_maps_do_not():
    x = torch.randn(1, 3, 32, 32)
    for name in ("resnet", "vgg", "densenet", "efficientnet"):
        own = [stage.shape for stage in _stages(small(f"{name}.pocket"), x)]
        for size in (1, 5, 7):
            model = small(f"{name}{{kernel_size: {size}}}")
            assert [stage.shape for stage in _stages(model, x)] == own
            assert {m.kernel_size[0] for m in model.modules() if isinstance(m, nn.Conv2d)} <= {1, size}


def _stages(model, x):
    x = model.stem(x)
    for stage in model.stages:
        x = stage(x)
        yield x


def test_patches_and_the_kernels_there_already_stay():
    own, model = small("convnext.pocket"), small("convnext{kernel_size: 7}")
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), model.parameters(), strict=True))
    sizes = [m.kernel_size[0] for m in small("convnext{kernel_size: 3}").modules() if isinstance(m, nn.Conv2d)]
    assert sizes[0] == 2 and set(sizes) == {2, 3}


def test_new_kernels_are_drawn_as_the_networks_own():
    conv = small("resnet{kernel_size: 5}").stages[2][1].conv1.conv
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (64 * 25)) ** 0.5, rel=0.02)  # He, fan-out
    depthwise = small("convnext{kernel_size: 3}").stages[3].block0.depthwise
    assert float(depthwise.weight.detach().std()) == pytest.approx(1 / 3, rel=0.2)  # its pocket member: 1 / sqrt(fan-in)
    own = small("compact{kernel_size: 5}").stages[1].conv1
    x = torch.randn(1, own.in_channels, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(own(x)[:, : own.in_channels], x)  # the identity


def test_a_strangers_new_kernels_keep_the_variance_of_sums():
    old = nn.Conv2d(64, 64, 3, padding=1)
    nn.init.constant_(old.bias, 0.5)
    new = altered(old, kernel_size=7)
    assert new.padding == (3, 3)
    ratio = float((new.weight.detach().var() * 49) / (old.weight.detach().var() * 9))
    assert ratio == pytest.approx(1, rel=0.05)
    assert torch.equal(new.bias, old.bias)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, (1, 3), padding=(0, 1)),
        nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        nn.Conv2d(3, 4, 3, stride=3, padding=1),
        nn.Conv2d(3, 4, 2, stride=2),
        nn.Conv2d(3, 4, 1),
    ],
)
def test_other_windows_are_left_alone(conv):
    with pytest.raises(UserError, match="kernel_size would change nothing"):
        altered(conv, kernel_size=5)


def test_same_padding_by_its_word():
    assert altered(nn.Conv2d(3, 4, 3, padding="same"), kernel_size=5)(torch.randn(1, 3, 8, 8)).shape == (1, 4, 8, 8)


# Nothing is skipped silently


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vgg{norm: none}", "has no BatchNorm"),
        ("googlenet.paper{norm: batch}", "has no BatchNorm"),
        ("lenet5.paper{act: relu}", "has no activation layers"),
        ("lenet{kernel_size: 3}", "has no square kernels"),
        ("convnext{norm: instance}", "may see vectors"),
    ],
)
def test_an_alteration_that_touches_nothing_is_refused(name, said):
    with pytest.raises(UserError, match=said):
        small(name)


def test_dropout_of_a_stranger():
    model = Stranger()
    alter_dropout(model, 0.1, name="mine")
    assert model.drop.p == 0.1
    with pytest.raises(UserError, match="mine has no dropout layers"):
        alter_dropout(nn.Sequential(nn.Conv2d(3, 4, 1)), 0.1, name="mine")
