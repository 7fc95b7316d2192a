"""Wide convolutions against torch's own: same outputs, same gradients, and nothing left behind."""

import io
import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from convatlas.models.registry import create_model
from convatlas.records.engine import ConvChoice
from convatlas.training import wide
from convatlas.training.conv_trial import conv_calls
from convatlas.training.wide import conv_shape, fold, group_for, layout, unfold, widened

WIDE = "_WideConvBackward"


def batch(*shape, dtype=torch.float64, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def conv(*args, dtype=torch.float64, **kwargs):
    torch.manual_seed(1)
    return nn.Conv2d(*args, dtype=dtype, **kwargs).to(memory_format=torch.channels_last)


def choice(x, layer, *, dtype=None, groups=(2, 3, 4)):
    return ConvChoice(conv_shape(x, layer, dtype=dtype or x.dtype), *groups)


def gradients(out, *inputs):
    """The output and its gradients by the inputs, all from a fixed gradient by the output."""
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, inputs, grad)


def distance(one, other):
    """The largest difference as a share of the largest number."""
    assert one.shape == other.shape
    return ((one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-9)).item()


@st.composite
def windows(draw):
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3, 5, 7])] * 2))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    sides = tuple(draw(st.integers(max(1, k - 2 * p), 11)) for k, p in zip(kernel, padding, strict=True))
    return kernel, stride, padding, sides


@settings(max_examples=150, deadline=None)
@given(windows(), st.integers(2, 9), st.tuples(*[st.sampled_from([1, 2, 3, 8, 128])] * 3), st.booleans())
def test_every_window_gives_what_torch_gives(window, images, groups, bias):
    kernel, stride, padding, sides = window
    layer = conv(3, 5, kernel, stride=stride, padding=padding, bias=bias)
    x = batch(images, 3, *sides)
    inputs = (x, *layer.parameters())
    own = gradients(layer(x), *inputs)
    with widened(layer, [choice(x, layer, groups=groups)]):
        out = layer(x)
        assert (out.grad_fn.name() == WIDE) == (groups != (1, 1, 1))
        other = gradients(out, *inputs)
    assert all(distance(b, a) < 1e-12 for a, b in zip(own, other, strict=True))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"), [(3, 1, 1, 4), (3, 2, 1, 9), (1, 2, 0, 8), (5, 1, 0, 7), (7, 2, 3, 11)]
)
@pytest.mark.parametrize("groups", [(1, 1, 8), (8, 8, 8), (8, 1, 16)])
def test_bf16_is_as_near_to_fp32_as_torch_is(kernel, stride, padding, side, groups):
    layer = conv(16, 32, kernel, stride=stride, padding=padding, dtype=torch.float32)
    x = batch(16, 16, side, side, dtype=torch.float32)
    exact = gradients(layer(x), x, *layer.parameters())
    low, y = deepcopy(layer).bfloat16(), x.detach().bfloat16().requires_grad_()
    with widened(low, [choice(y, low, groups=groups)]):
        out = low(y)
        assert out.grad_fn.name() == WIDE
        near = gradients(out, y, *low.parameters())
    assert all(distance(b, a) < 0.03 for a, b in zip(exact, near, strict=True))


def test_autocast_computes_in_its_format_and_gives_gradients_in_the_weights_format():
    layer, x = conv(8, 8, 3, padding=1, dtype=torch.float32), batch(8, 8, 4, 4, dtype=torch.float32)
    inputs = (x, *layer.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = gradients(layer(x), *inputs)
        with widened(layer, [choice(x, layer, dtype=torch.bfloat16, groups=(4, 4, 8))]):
            out = layer(x)
    assert (out.grad_fn.name(), out.dtype) == (WIDE, torch.bfloat16)
    assert {each.dtype for each in out.grad_fn.saved_tensors} == {torch.bfloat16}
    other = gradients(out, *inputs)
    assert [each.dtype for each in other] == [torch.bfloat16, *[torch.float32] * 3]
    assert all(distance(b, a) < 0.02 for a, b in zip(own, other, strict=True))


def test_autocast_leaves_double_precision_alone():
    layer, x = conv(2, 2, 3), batch(4, 2, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16), widened(layer, [choice(x, layer)]):
        out = layer(x)
    assert (out.grad_fn.name(), out.dtype) == (WIDE, torch.float64)


@pytest.mark.parametrize("groups", [(2, 2, 2), (4, 1, 2), (1, 4, 2)])
@pytest.mark.parametrize("wanted", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_only_wanted_gradients_are_computed(wanted, groups):
    layer, x = conv(3, 4, 3, padding=1), batch(4, 3, 5, 5)
    inputs = (x, layer.weight, layer.bias)
    own = gradients(layer(x), *inputs)[1:]
    for each, on in zip(inputs, wanted, strict=True):
        each.requires_grad_(bool(on))
    with widened(layer, [choice(x, layer, groups=groups)]):
        out = layer(x)
    assert out.requires_grad == any(wanted)
    if any(wanted):
        assert out.grad_fn.name() == WIDE
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype))
    for each, gradient, on in zip(inputs, own, wanted, strict=True):
        assert (each.grad is not None) == bool(on)
        assert not on or distance(each.grad, gradient) < 1e-12


def test_a_gradient_of_any_layout_will_do():
    layer, x = conv(3, 4, 3, padding=1), batch(4, 3, 5, 5)
    with widened(layer, [choice(x, layer)]):
        other = torch.autograd.grad(layer(x).mean((2, 3)).sum(), (x, *layer.parameters()))  # an expanded scalar
    own = torch.autograd.grad(layer(x).mean((2, 3)).sum(), (x, *layer.parameters()))
    assert all(distance(b, a) < 1e-12 for a, b in zip(own, other, strict=True))


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_folding_puts_zeros_between_images_and_unfolding_undoes_it(gap):
    x = batch(6, 2, 3, 4).detach()
    folded = fold(x, 3, gap=gap)
    assert folded.shape == (2, 2, 3, 12 + 2 * gap)
    assert folded.is_contiguous(memory_format=torch.channels_last)
    for i in range(3):
        begin = i * (4 + gap)
        assert torch.equal(folded[1, :, :, begin : begin + 4], x[3 + i])
        assert not folded[:, :, :, begin + 4 : begin + 4 + gap].any()
    assert torch.equal(unfold(folded, 3, width=4, gap=gap), x)
    assert fold(x, 1, gap=gap) is x


@pytest.mark.parametrize(
    ("width", "kernel", "stride", "padding", "gaps"),
    [
        (4, 3, 1, 1, (1, 1)),
        (32, 3, 2, 1, (2, 1)),
        (8, 1, 1, 0, (0, 0)),
        (7, 1, 2, 0, (1, 0)),
        (8, 7, 2, 3, (4, 2)),
        (4, 1, 1, 1, (2, 0)),
    ],
)
def test_the_least_gap_that_keeps_images_apart(width, kernel, stride, padding, gaps):
    lay = layout(width, kernel=(kernel, kernel), stride=(stride, stride), padding=(padding, padding))
    assert (lay.gap, lay.out_gap) == gaps


@pytest.mark.parametrize(
    ("images", "wanted", "group"), [(128, 8, 8), (100, 8, 5), (100, 128, 100), (7, 4, 1), (7, 8, 7), (8, 0, 1), (8, -3, 1)]
)
def test_the_largest_group_that_divides_the_batch(images, wanted, group):
    assert group_for(images, wanted) == group


def test_shapes_are_named():
    x = batch(128, 512, 4, 4, dtype=torch.float32)
    assert (
        conv_shape(x, nn.Conv2d(512, 512, 3, padding=1), dtype=torch.bfloat16)
        == "512x4x4 -> 512, 3x3 stride 1 padding 1, bfloat16"
    )
    odd = nn.Conv2d(512, 6, (1, 5), stride=(1, 2), padding="valid", dilation=2, groups=2)
    assert conv_shape(x, odd, dtype=x.dtype) == "512x4x4 -> 6, 1x5 stride 1x2 padding valid dilation 2 groups 2, float32"


class Odd(nn.Conv2d):
    """Not torch's class itself."""


@pytest.mark.parametrize(
    "layer",
    [
        conv(4, 4, 3, groups=2),
        conv(4, 4, 3, dilation=2),
        conv(4, 4, 3, padding="same"),
        conv(4, 4, 3, padding=1, padding_mode="reflect"),
        Odd(4, 4, 3, dtype=torch.float64),
        conv(4, 4, 3).eval(),
        conv(4, 4, 3).requires_grad_(False),
    ],
)
def test_what_is_not_a_plain_convolution_in_training_is_left_alone(layer):
    x = batch(4, 4, 6, 6).detach()
    expected = layer(x)
    with widened(layer, [choice(x, layer)]):
        out = layer(x)
    assert out.grad_fn is None or out.grad_fn.name() != WIDE
    assert torch.equal(out, expected)


@pytest.mark.parametrize(
    "x",
    [
        batch(4, 3, 6, 5),
        batch(4, 3, 6, 6).detach().contiguous(),
        batch(1, 3, 6, 6),
        batch(4, 3, 6, 6).detach()[0],
    ],
    ids=["another width", "channels first", "one image", "no batch"],
)
def test_calls_that_nothing_was_chosen_for_are_left_alone(x):
    layer = conv(3, 4, 3)
    with widened(layer, [choice(batch(4, 3, 6, 6), layer)]):
        assert layer(x).grad_fn.name() != WIDE
        assert layer(batch(4, 3, 6, 6)).grad_fn.name() == layer(batch(5, 3, 6, 6)).grad_fn.name() == WIDE
        with torch.no_grad():
            assert layer(batch(4, 3, 6, 6)).grad_fn is None


def test_what_torch_refuses_is_refused():
    layer, x = conv(3, 4, 3, dtype=torch.float32), batch(4, 3, 6, 6)
    with widened(layer, [choice(x, layer)]), pytest.raises(RuntimeError, match="should be the same|type"):
        layer(x)


def test_one_convolution_meets_several_sizes():
    layer, small, large = conv(3, 4, 3, padding=1), batch(4, 3, 6, 6), batch(4, 3, 9, 9)
    choices = [choice(small, layer, groups=(2, 2, 2)), choice(large, layer, groups=(4, 1, 1))]
    with widened(layer, choices):
        for x, each in ((small, choices[0]), (large, choices[1]), (small, choices[0])):
            assert layer(x).grad_fn.choice == each


class Failure(Exception):
    """Something went wrong inside."""


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was_afterwards(fails):
    model = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4, dtype=torch.float64), conv(4, 4, 1))
    x = batch(4, 3, 6, 6)
    kinds, keys = [type(each) for each in model.modules()], list(model.state_dict())
    before = [dict(vars(each)) for each in model.modules()]
    try:
        with widened(model, [choice(x, model[0])]):
            assert "forward" in vars(model[0])
            assert "forward" not in vars(model[2]), "no choice is about it"
            assert list(model.state_dict()) == keys
            assert [type(each) for each in model.modules()] == kinds
            if fails:
                raise Failure
    except Failure:
        assert fails
    assert [list(vars(each)) for each in model.modules()] == [list(each) for each in before]
    assert model(x).grad_fn.name() != WIDE


def test_nothing_is_touched_where_torch_is_fastest():
    layer = conv(3, 4, 3)
    with widened(layer, [choice(batch(4, 3, 6, 6), layer, groups=(1, 1, 1))]):
        assert "forward" not in vars(layer)


def test_inner_choices_go_before_outer_ones():
    layer, x, y = conv(3, 4, 3), batch(4, 3, 6, 6), batch(4, 3, 7, 7)
    outer, both, inner = (
        choice(x, layer, groups=(2, 2, 2)),
        choice(y, layer, groups=(2, 2, 2)),
        choice(y, layer, groups=(4, 4, 4)),
    )
    with widened(layer, [outer, both]):
        with widened(layer, [inner]):
            assert (layer(x).grad_fn.choice, layer(y).grad_fn.choice) == (outer, inner)
        assert layer(y).grad_fn.choice == both
    assert "forward" not in vars(layer)


def test_a_forward_that_somebody_replaced_stays():
    layer, x = conv(3, 4, 3), batch(4, 3, 6, 6)
    theirs = layer.forward = lambda x: x
    with widened(layer, [choice(x, layer)]):
        assert layer(x) is x
    assert vars(layer)["forward"] is theirs


@pytest.mark.parametrize("made", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("during", [False, True])
def test_copies_compute_as_torch_does_and_are_of_their_own(made, during):
    model, x = nn.Sequential(conv(3, 4, 3)), batch(4, 3, 6, 6)
    with widened(model, [choice(x, model[0])]):
        inside = made(model)
    copy = inside if during else made(model)
    copy[0].weight.data.zero_()
    out = copy(x)
    assert out.grad_fn.name() != WIDE
    assert torch.equal(out, copy[0].bias[None, :, None, None].expand_as(out)), "from its own weights"
    assert copy.state_dict().keys() == model.state_dict().keys()


def test_a_whole_model_can_be_saved_meanwhile():
    layer, x = conv(3, 4, 3), batch(4, 3, 6, 6)
    with widened(layer, [choice(x, layer)]):
        torch.save(layer.state_dict(), buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=True)["weight"], layer.weight)


@pytest.mark.parametrize(("dtype", "cast", "near"), [(torch.float64, None, 1e-12), (torch.float32, torch.bfloat16, 0.02)])
@pytest.mark.parametrize("recomputes", [False, True])
def test_training_gives_the_same_losses(dtype, cast, near, recomputes, monkeypatch):
    """In double precision: in single, the first rounding that turns a ReLU on or off already moves gradients by a tenth."""
    x, y = batch(16, 3, 32, 32, dtype=dtype).detach(), torch.arange(16) % 10
    passed, backward_pass = [], wide.backward_pass
    monkeypatch.setattr(
        wide, "backward_pass", lambda *args, **given: passed.append(given["group"]) or backward_pass(*args, **given)
    )

    def losses(groups):
        torch.manual_seed(0)
        model = create_model("resnet.pocket", num_classes=10).to(dtype=dtype, memory_format=torch.channels_last).train()
        model.set_grad_checkpointing(recomputes)
        calls = conv_calls(model, x, autocast_dtype=cast)
        optimizer, seen = torch.optim.SGD(model.parameters(), lr=0.05), []
        with widened(model, [ConvChoice(call.shape, *groups) for call in calls]):
            for _ in range(3):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast is not None):
                    loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen.append(loss.item())
        return seen

    own = losses((1, 1, 1))
    assert passed == []
    assert losses((8, 16, 4)) == pytest.approx(own, rel=near)
    convs = 21
    assert sorted(passed) == [4] * 3 * convs + [16] * 3 * (convs - 1), "the first one's input has no gradient"
    assert own[2] < own[0]
