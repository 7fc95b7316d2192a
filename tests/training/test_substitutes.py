"""Layers computed by other operations against torch's own: the same numbers, and nothing left behind."""

import json
import pickle
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from convatlas.models.registry import create_model
from convatlas.records import codec
from convatlas.records.engine import ConvChoice
from convatlas.records.run import Choices, RunSummary
from convatlas.training import engine, substitutes
from convatlas.training.checkpoint import load_state
from convatlas.training.engine import applied, choose, settle
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.stand_in import stands_in
from convatlas.training.substitutes import averages, count_substitutes, spread, substituted
from convatlas.training.watch import Unwatched
from convatlas.training.wide import conv_shape, widened

from .makers import StopAfter, small_data, small_recipe

POOL, PRODUCT, WIDE = "_AveragePoolBackward", "_OnePixelBackward", "_WideConvBackward"
TANH, NARROW = "_TanhBackward", "_NarrowConvBackward"
OWN_POOL, OWN_CONV = "AvgPool2DBackward0", "ConvolutionBackward0"


LIMITS = {name: getattr(substitutes, name) for name in ("POOL_NUMBERS", "TANH_NUMBERS", "NARROW_MACS")}


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    """Small batches too, and on every processor; what is left out for its size has tests of its own."""
    for name, limit in LIMITS.items():
        monkeypatch.setattr(substitutes, name, dict.fromkeys(limit, 0) if isinstance(limit, dict) else 0)
    monkeypatch.setattr(substitutes, "_vectors_are_long", lambda: True)


def batch(*shape, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def made_by(out):
    """The name of the function that computed it, whatever views of that it is."""
    made = out.grad_fn
    while made.name() in ("PermuteBackward0", "ViewBackward0", "UnsafeViewBackward0"):
        made = made.next_functions[0][0]
    return made.name()


def gradients(layer, x):
    """The output and the gradients by input and parameters, from a fixed gradient by the output."""
    out = layer(x)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, (x, *layer.parameters()), grad)


@settings(max_examples=60)
@given(st.tuples(*[st.sampled_from([1, 2, 3, 7])] * 2), st.tuples(*[st.integers(1, 5)] * 4), st.booleans())
def test_the_gradient_of_averages_equals_torchs(window, sides, bf16):
    n, channels, height, width = sides
    x = batch(n, channels, height * window[0], width * window[1], dtype=torch.bfloat16 if bf16 else torch.float32)
    out = F.avg_pool2d(x, window)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    ours = spread(grad, window)
    assert torch.equal(ours, torch.autograd.grad(out, x, grad)[0])
    assert ours.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=60)
@given(st.tuples(*[st.integers(1, 4)] * 2), st.tuples(*[st.integers(1, 5)] * 4), st.booleans())
def test_averages_equal_torchs(window, sides, bf16):
    n, channels, height, width = sides
    x = batch(n, channels, height * window[0], width * window[1], dtype=torch.bfloat16 if bf16 else torch.float32).detach()
    ours = averages(x, window)
    assert torch.equal(ours.permute(0, 3, 1, 2), F.avg_pool2d(x, window))
    assert ours.is_contiguous()


@pytest.mark.parametrize(
    ("pool", "shape", "dtype"),
    [
        (nn.AvgPool2d(2), (2, 6, 8, 8), torch.float32),
        (nn.AvgPool2d(2), (2, 6, 8, 16), torch.float32),
        (nn.AvgPool2d(2), (3, 8, 4, 8), torch.bfloat16),
        (nn.AvgPool2d((2, 3)), (2, 6, 8, 9), torch.float32),
        (nn.AvgPool2d(2), (1, 64, 8, 8), torch.bfloat16),
    ],
)
def test_averages_of_windows_that_do_not_overlap_give_equal_numbers(pool, shape, dtype):
    x, own = batch(*shape, dtype=dtype), deepcopy(pool)
    with substituted(pool):
        assert made_by(pool(x)) == POOL
        assert all(torch.equal(one, other) for one, other in zip(gradients(pool, x), gradients(own, x), strict=True))
    assert pool(x).grad_fn.name() == OWN_POOL


@pytest.mark.parametrize(
    ("pool", "x"),
    [
        (nn.AvgPool2d(3, stride=2), batch(2, 6, 9, 9)),
        (nn.AvgPool2d(2, padding=1), batch(2, 6, 8, 8)),
        (nn.AvgPool2d(2, divisor_override=3), batch(2, 6, 8, 8)),
        (nn.AvgPool2d(2), batch(2, 6, 9, 8)),
        (nn.AvgPool2d(2, ceil_mode=True), batch(2, 6, 8, 9)),
        (nn.AvgPool2d(2), batch(2, 16, 8, 8)),
        (nn.AvgPool2d(4), batch(2, 6, 8, 8)),
        (nn.AvgPool2d((1, 9)), batch(2, 6, 9, 9, dtype=torch.bfloat16)),
        (nn.AvgPool2d(2), batch(2, 6, 1, 8).expand(2, 6, 8, 8)),
        (nn.AvgPool2d(2), batch(2, 6, 8, 8, dtype=torch.float64)),
        (nn.AvgPool2d(2), batch(2, 1, 8, 8)),
        (nn.AvgPool2d(2), batch(2, 6, 8, 8).detach().contiguous().requires_grad_()),
        (nn.AvgPool2d(2), batch(2, 6, 8, 8)[0]),
        (nn.AvgPool2d(2).eval(), batch(2, 6, 8, 8)),
    ],
    ids=[
        "overlap",
        "padded",
        "divisor",
        "rows left",
        "columns left",
        "wide",
        "large",
        "larger",
        "expanded",
        "double",
        "one channel",
        "NCHW",
        "no batch",
        "eval",
    ],
)
def test_other_averages_are_torchs_own(pool, x):
    with substituted(pool):
        assert pool(x).grad_fn.name() in (OWN_POOL, "SqueezeBackward1", "SqueezeBackward0")


def test_without_a_gradient_averages_are_torchs_own():
    pool, x = nn.AvgPool2d(2), batch(2, 6, 8, 8)
    with substituted(pool), torch.no_grad():
        assert pool(x).grad_fn is None
    with substituted(pool):
        assert pool(x.detach()).grad_fn is None


def whole(*args, dtype=torch.float64, **more):
    torch.manual_seed(1)
    return nn.Conv2d(*args, dtype=dtype, **more).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel", [2, 5, (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_kernel_as_large_as_the_map_is_a_product(kernel, bias):
    conv = whole(16, 7, kernel, bias=bias)
    x, own = batch(4, 16, *conv.kernel_size, dtype=torch.float64), deepcopy(conv)
    with substituted(conv):
        assert conv(x).grad_fn.name() == PRODUCT
        for one, other in zip(gradients(conv, x), gradients(own, x), strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert conv(x).stride() == own(x).stride()
    assert conv(x).grad_fn.name() == OWN_CONV


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        (whole(16, 6, 3), batch(2, 16, 4, 3, dtype=torch.float64)),
        (whole(16, 6, 6), batch(2, 16, 6, 6, dtype=torch.float64)),
        (whole(15, 6, 3), batch(2, 15, 3, 3, dtype=torch.float64)),
        (whole(16, 6, 3, padding=1), batch(2, 16, 3, 3, dtype=torch.float64)),
        (whole(16, 6, 3, groups=2), batch(2, 16, 3, 3, dtype=torch.float64)),
        (whole(16, 6, 2, dilation=2), batch(2, 16, 3, 3, dtype=torch.float64)),
        (whole(16, 6, 1), batch(2, 16, 1, 1, dtype=torch.float64)),
        (whole(16, 6, 3), batch(1, 16, 3, 3, dtype=torch.float64)),
        (whole(16, 6, 3), batch(2, 16, 3, 3, dtype=torch.float64).detach().contiguous().requires_grad_()),
        (whole(16, 6, 3).eval(), batch(2, 16, 3, 3, dtype=torch.float64)),
    ],
    ids=["larger map", "larger kernel", "few channels", "padded", "groups", "dilated", "one pixel", "one image", "NCHW", "eval"],
)
def test_other_convolutions_are_torchs_own(conv, x):
    with substituted(conv):
        assert conv(x).grad_fn.name() == OWN_CONV


IN_PLACE = [
    (lambda: nn.AvgPool2d(2), batch(2, 6, 8, 16)),
    (lambda: nn.AvgPool2d(2), batch(2, 16, 8, 8, dtype=torch.bfloat16)),
    (nn.Tanh, batch(2, 6, 8, 8)),
    (lambda: few(3, 6, 5), batch(2, 3, 12, 12)),
    (lambda: few(3, 9, 5), batch(2, 3, 12, 12)),
    (lambda: few(16, 4, 5), batch(2, 16, 5, 5)),
]


@pytest.mark.parametrize(("make", "x"), IN_PLACE, ids=["averages", "pool", "tangent", "pairs", "to the data", "product"])
def test_what_a_substitute_gives_may_be_changed_in_place(make, x):
    """As by ReLU(inplace=True) or by a shortcut that is added to it."""
    layer = make()
    own = deepcopy(layer)

    def changed(layer):
        out = layer(x)
        out *= 2.0
        out[:, :1].add_(1.0)
        return out

    with substituted(layer):
        assert made_by(layer(x)) not in (OWN_POOL, OWN_CONV, "TanhBackward0")
        ours, theirs = ([changed(each)] for each in (layer, own))
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-2, atol=1e-5)
        if type(layer) is nn.Tanh:  # whose gradient is made of the output
            for made in ours + theirs:
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    made.sum().backward()
            return
        for each, made in ((layer, ours), (own, theirs)):
            made += torch.autograd.grad(made[0].float().pow(2).sum(), (x, *each.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2 * other.abs().max().item())


@pytest.mark.parametrize(("make", "x"), IN_PLACE, ids=["averages", "pool", "tangent", "pairs", "to the data", "product"])
def test_what_a_substitute_gives_is_no_view(make, x):
    """Of what is changed in a view torch copies the gradient, which cost more than substitutes gain."""
    layer = make()
    with substituted(layer):
        out = layer(x)
    assert not out._is_view()
    assert F.relu(out, inplace=True).grad_fn.name() == "ReluBackward0"


def test_averages_of_one_pixel_are_not_the_map_itself():
    layer, x = nn.AvgPool2d(1), batch(2, 6, 8, 16)
    before = x.detach().clone()
    with substituted(layer):
        layer(x).detach().zero_()
    assert torch.equal(x, before)


@pytest.mark.parametrize(("make", "x"), IN_PLACE, ids=["averages", "pool", "tangent", "pairs", "to the data", "product"])
def test_who_looks_on_sees_torchs_own(make, x):
    """Checkpoints that keep what some operations gave could not tell that it was changed, and gradients would be wrong."""
    layer = make()
    own = made_by(layer(x))
    with substituted(layer), FlopCounterMode(display=False):
        assert made_by(layer(x)) == own


def test_what_a_checkpoint_keeps_may_not_be_changed():
    layer, x = few(3, 6, 5), batch(2, 3, 12, 12)

    def policy(_, operation, *args, **kwargs):
        kept = operation is torch.ops.aten.convolution.default
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    def body(x):
        return layer(x).mul_(2.0).sin()

    with substituted(layer), pytest.raises(RuntimeError, match="mutated"):
        kept = partial(create_selective_checkpoint_contexts, policy)
        checkpoint(body, x, use_reentrant=False, context_fn=kept).sum().backward()


@pytest.mark.parametrize(("make", "x"), IN_PLACE, ids=["averages", "pool", "tangent", "pairs", "to the data", "product"])
def test_what_is_compiled_or_no_plain_tensor_is_torchs_own(make, x, monkeypatch):
    layer = make()
    own = layer(x)
    with substituted(layer):
        assert torch.equal(layer(nn.Parameter(x)), own)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert torch.equal(layer(x), own)
        assert made_by(layer(x)) == made_by(own)


def test_a_batch_without_images_stays_one():
    rows = batch(0, 6, 8, 16), batch(0, 6, 8, 8, dtype=torch.bfloat16)
    for x in rows:
        assert len(averages(x, (2, 2))) == 0
    for layer, x in ((nn.AvgPool2d(2), batch(0, 6, 8, 8)), (nn.Tanh(), batch(0, 6, 8, 8)), (few(3, 6, 5), batch(0, 3, 12, 12))):
        with substituted(layer):
            assert len(layer(x)) == 0


@pytest.mark.parametrize(
    ("pool", "shape", "dtype", "by_rows"),
    [
        (2, (2, 6, 8, 16), torch.float32, True),
        (2, (2, 6, 8, 14), torch.float32, False),
        (2, (2, 8, 8, 8), torch.bfloat16, True),
        ((1, 4), (2, 8, 8, 8), torch.bfloat16, True),
        (2, (2, 9, 8, 8), torch.bfloat16, False),
        (3, (2, 6, 9, 9), torch.bfloat16, False),
    ],
)
def test_averages_of_few_channels_go_by_rows(pool, shape, dtype, by_rows, monkeypatch):
    called = []
    monkeypatch.setattr(substitutes, "averages", lambda *args: called.append(args) or averages(*args))
    layer, x = nn.AvgPool2d(pool), batch(*shape, dtype=dtype)
    with substituted(layer):
        assert torch.equal(layer(x), F.avg_pool2d(x, pool))
    assert bool(called) == by_rows


def few(*args, dtype=torch.float32, **more):
    return whole(*args, dtype=dtype, **more)


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        (few(3, 6, 5), batch(2, 3, 14, 14)),
        (few(3, 6, 5, bias=False), batch(2, 3, 13, 14).detach()),
        (few(1, 8, (7, 5), padding=(0, 2)), batch(2, 1, 12, 12)),
        (few(8, 16, 5, padding=1), batch(2, 8, 12, 12)),
        (few(1, 8, 5, padding=4), batch(2, 1, 12, 64)),
        (few(2, 8, 5, dtype=torch.bfloat16), batch(2, 2, 128, 128, dtype=torch.bfloat16)),
    ],
    ids=["LeNet-5's", "no bias, images", "oblong, one channel", "to the data only", "padded", "bf16"],
)
def test_convolutions_of_few_channels_go_by_pairs_of_pixels(conv, x):
    own = deepcopy(conv)
    with substituted(conv):
        out = conv(x)
    assert made_by(out) == NARROW
    torch.testing.assert_close(out, own(x), rtol=2e-2 if x.dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert conv(x).grad_fn.name() == OWN_CONV


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        (few(3, 9, 5), batch(2, 3, 14, 14).detach()),
        (few(3, 17, 5), batch(2, 3, 14, 14)),
        (few(3, 9, 5, padding=2), batch(2, 3, 14, 14)),
        (few(3, 9, 5), batch(2, 3, 34, 34)),
        (few(2, 9, 5), batch(2, 2, 14, 14)),
        (few(9, 6, 5), batch(2, 9, 14, 14)),
        (few(3, 6, 3), batch(2, 3, 14, 14)),
        (few(3, 6, 9), batch(2, 3, 14, 14)),
        (few(3, 6, (5, 4)), batch(2, 3, 14, 14)),
        (few(3, 6, 5), batch(2, 3, 14, 13)),
        (few(3, 6, 5), batch(2, 3, 14, 10)),
        (few(3, 6, 5), batch(2, 3, 14, 130)),
        (few(3, 6, 5, stride=2), batch(2, 3, 14, 14)),
        (few(3, 6, 5, padding=5), batch(2, 3, 14, 14)),
        (few(3, 6, 5, dilation=2), batch(2, 3, 14, 14)),
        (few(3, 6, 5, dtype=torch.float64), batch(2, 3, 14, 14, dtype=torch.float64)),
        (few(3, 6, 5), batch(1, 3, 14, 14)),
    ],
    ids=[
        "outputs of images",
        "outputs",
        "outputs, padded",
        "outputs, wide",
        "outputs, few inputs",
        "inputs",
        "small kernel",
        "large kernel",
        "even kernel",
        "odd width",
        "narrow map",
        "wide map",
        "stride",
        "padding",
        "dilated",
        "double",
        "one image",
    ],
)
def test_other_convolutions_do_not_go_by_pairs(conv, x):
    with substituted(conv):
        assert conv(x).grad_fn.name() == OWN_CONV


@pytest.mark.parametrize(
    ("conv", "x"),
    [(few(3, 6, 5), batch(4, 3, 12, 12)), (whole(16, 12, 5, dtype=torch.float32), batch(4, 16, 5, 5))],
    ids=["pairs", "product"],
)
def test_autocast_computes_convolutions_in_its_format(conv, x):
    own = deepcopy(conv)
    with torch.autocast("cpu", dtype=torch.bfloat16), substituted(conv):
        assert made_by(conv(x)) != OWN_CONV
        out, by_input, by_weight, by_bias = gradients(conv, x)
        expected = gradients(own, x)
    assert (out.dtype, by_input.dtype, by_weight.dtype, by_bias.dtype) == (torch.bfloat16, *[torch.float32] * 3)
    for one, other in zip((out, by_input, by_weight, by_bias), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * other.abs().max().item())


def test_pooling_is_differentiable_as_often_as_torchs():
    def penalty(x, pool):
        (by_input,) = torch.autograd.grad(pool(x).pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(by_input.pow(3).sum(), x)[0]

    pool, x = nn.AvgPool2d(2), batch(2, 6, 8, 8)
    expected, of_each = penalty(x, pool), torch.func.vmap(torch.func.grad(lambda one: pool(one).pow(2).sum()))(x[:, None])
    with substituted(pool):
        assert made_by(pool(x)) == POOL
        assert torch.equal(penalty(x, pool), expected)
        again = torch.func.vmap(torch.func.grad(lambda one: pool(one).pow(2).sum()))(x[:, None])
    assert torch.equal(again, of_each)


def test_a_convolution_that_somebody_computes_otherwise_is_left_alone():
    """Tiling and the like put a function in the place of torch's inner one."""
    conv = whole(16, 4, 3)
    conv._conv_forward = lambda x, weight, bias: torch.zeros(len(x), 4, 1, 1, dtype=x.dtype)
    x = batch(4, 16, 3, 3, dtype=torch.float64)
    with widened(conv, [ConvChoice(conv_shape(x, conv, dtype=x.dtype), 2, 2, 2)]), substituted(conv):
        assert torch.equal(conv(x), torch.zeros(4, 4, 1, 1, dtype=torch.float64))


def test_images_of_other_channels_are_refused_as_torch_does():
    conv = whole(16, 4, 3)
    with substituted(conv), pytest.raises(RuntimeError, match="expected input.* to have 16 channels, but got 17"):
        conv(batch(4, 17, 3, 3, dtype=torch.float64))


class Failure(Exception):
    """Something went wrong inside."""


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was_afterwards(fails):
    model = create_model("lenet5", num_classes=10).train()
    before = [list(vars(each)) for each in model.modules()]
    keys = list(model.state_dict())
    try:
        with substituted(model):
            assert sum("forward" in vars(each) for each in model.modules()) == 9
            assert list(model.state_dict()) == keys
            if fails:
                raise Failure
    except Failure:
        assert fails
    assert [list(vars(each)) for each in model.modules()] == before


def test_a_forward_that_somebody_replaced_stays():
    pool, x = nn.AvgPool2d(2), batch(2, 6, 8, 8)
    theirs = pool.forward = lambda x: x
    with substituted(pool):
        assert pool(x) is x
    assert vars(pool)["forward"] is theirs


def test_a_forward_that_somebody_replaces_meanwhile_stays():
    pool = nn.AvgPool2d(2)
    with substituted(pool):
        theirs = pool.forward = lambda x: x
    assert vars(pool)["forward"] is theirs


@pytest.mark.parametrize("made", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_as_torch_does_and_are_of_their_own(made):
    model, x = nn.Sequential(whole(16, 4, 3)), batch(4, 16, 3, 3, dtype=torch.float64)
    with substituted(model):
        copy = made(model)
        copy[0].weight.data.zero_()
        out = copy(x)
    assert out.grad_fn.name() == OWN_CONV
    assert torch.equal(out, copy[0].bias[None, :, None, None].expand_as(out)), "from its own weights"


def test_other_convolutions_and_substitutes_go_together():
    """A map as large as the kernel is a product; a larger one is computed side by side, as chosen for it."""
    conv = whole(16, 4, 3)
    small, large = (batch(4, 16, side, side, dtype=torch.float64) for side in (3, 6))
    choices = [ConvChoice(conv_shape(x, conv, dtype=x.dtype), 2, 2, 2) for x in (small, large)]
    with widened(conv, choices):
        with substituted(conv):
            assert (conv(small).grad_fn.name(), conv(large).grad_fn.name()) == (PRODUCT, WIDE)
        assert conv(small).grad_fn.name() == WIDE
    assert "forward" not in vars(conv)


def losses(name, *, others, dtype, cast=False, steps=3):
    torch.manual_seed(0)
    model = (
        create_model(name, num_classes=10, in_chans=3, image_size=32).to(dtype=dtype, memory_format=torch.channels_last).train()
    )
    x, y = batch(16, 3, 32, 32, dtype=dtype).detach(), torch.arange(16) % 10
    plain = Choices("cpu", "fp32", "channels_last", 1, "", substitutes=others)
    optimizer, seen = torch.optim.SGD(model.parameters(), lr=0.05), []
    with applied(plain, model) as answer:
        assert (sum(stands_in(each) is not None for each in model.modules()) > 2) == others
        for _ in range(steps):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
                loss = F.cross_entropy(answer(x)[0][1].double(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    return seen


def test_training_gives_the_same_losses():
    assert losses("lenet5", others=True, dtype=torch.float64) == pytest.approx(
        losses("lenet5", others=False, dtype=torch.float64), rel=1e-12
    )
    cast = {"dtype": torch.float32, "cast": True}
    assert losses("lenet5", others=True, **cast) == pytest.approx(losses("lenet5", others=False, **cast), rel=1e-3)
    assert losses("densenet.pocket", others=True, **cast) == losses("densenet.pocket", others=False, **cast), (
        "pooling is the same"
    )


@pytest.mark.parametrize(
    ("name", "dtype", "found"),
    [("lenet5", torch.bfloat16, 8), ("lenet5", None, 7), ("densenet.pocket", torch.bfloat16, 3), ("resnet.pocket", None, 0)],
)
def test_layers_with_substitutes_are_counted_on_a_copy(name, dtype, found):
    model = create_model(name, num_classes=10, in_chans=3, image_size=32).to(memory_format=torch.channels_last).train()
    before, state = deepcopy(model.state_dict()), torch.get_rng_state()
    assert count_substitutes(model, [batch(4, 3, 32, 32).detach()], autocast_dtype=dtype) == found
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(each, before[key]) for key, each in model.state_dict().items())
    assert not any(each._forward_pre_hooks for each in model.modules())


def test_a_layer_that_meets_several_sizes_is_counted_once():
    model = nn.Sequential(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2)).to(memory_format=torch.channels_last).train()
    sizes = [batch(4, 3, side, side).detach() for side in (24, 32, 40)]
    assert count_substitutes(model, sizes, autocast_dtype=torch.bfloat16) == 3


@pytest.mark.parametrize(
    ("images", "threads", "long", "found"),
    [
        (128, 1, True, ["c5", "conv", "conv", "pool", "pool", "tanh", "tanh"]),
        (128, 1, False, ["c5", "pool", "pool", "tanh", "tanh"]),
        (128, 2, True, ["c5", "conv", "conv", "pool", "pool", "tanh"]),
        (64, 2, True, ["c5", "pool", "tanh"]),
        (8, 2, True, ["c5"]),
    ],
)
def test_what_takes_longer_to_begin_than_it_saves_stays_torchs_own(images, threads, long, found, monkeypatch):
    for name, limit in LIMITS.items():
        monkeypatch.setattr(substitutes, name, limit)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(substitutes, "_vectors_are_long", lambda: long)
    kept = dict(substitutes.SUBSTITUTES)
    model = create_model("lenet5", num_classes=10, in_chans=3, image_size=32).to(memory_format=torch.channels_last).train()
    names, met = {id(each): name.split(".")[-1] for name, each in model.named_modules()}, []

    def told(layer, x, n):
        compute = kept[type(layer)](layer, x, n)
        met.extend([names[id(layer)]] if compute is not None and id(layer) in names else [])
        return compute

    monkeypatch.setattr(substitutes, "SUBSTITUTES", dict.fromkeys(kept, told))
    x = batch(images, 3, 32, 32).detach()
    with substituted(model), torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
    assert sorted(met) == found
    assert count_substitutes(model, [x], autocast_dtype=torch.bfloat16) == len(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 6])
def test_onednns_tangent_is_torchs_to_rounding(dtype, channels):
    layer, x = nn.Tanh(), batch(2, channels, 3, 4, dtype=dtype)
    x = (4 * x.detach()).to(memory_format=torch.channels_last).requires_grad_()
    expected = gradients(nn.Tanh(), x)
    with substituted(layer):
        ours = gradients(layer, x)
        out = layer(x)
        assert made_by(out) == TANH
        (by_input,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        (again,) = torch.autograd.grad(by_input.sum(), x)
    assert layer(x).grad_fn.name() == "TanhBackward0"
    tolerance = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 3e-7}
    for one, other in zip(ours, expected, strict=True):
        assert one.is_contiguous(memory_format=torch.channels_last) == other.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, other, **tolerance)
    assert ours[0].stride(1) == 1, "of one channel too, or what follows is computed in another layout"
    y = x.detach().double().tanh()
    torch.testing.assert_close(again.double(), -2 * y * (1 - y * y), rtol=0.1, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)


def test_the_tangent_of_one_image_each():
    layer, x = nn.Tanh(), batch(3, 2, 4, 4)
    with substituted(layer):
        assert torch.equal(torch.func.vmap(layer)(x[None]), x.tanh()[None])
        each = torch.func.vmap(torch.func.grad(lambda one: layer(one[None]).pow(2).sum()))(x)
    torch.testing.assert_close(each, torch.autograd.grad(x.tanh().pow(2).sum(), x)[0])


@pytest.mark.parametrize(
    "x",
    [
        batch(2, 6, 4, 4, dtype=torch.float64),
        batch(2, 6, 4, 4).detach(),
        batch(2, 6, 4, 4).detach().contiguous().requires_grad_(),
        torch.ones(2, 6, requires_grad=True),
    ],
    ids=["double", "no gradient", "NCHW", "no map"],
)
def test_other_tangents_are_torchs_own(x):
    layer = nn.Tanh()
    with substituted(layer):
        assert getattr(layer(x).grad_fn, "name", lambda: None)() in ("TanhBackward0", None)


class Gate(nn.Module):
    """Multiplies by the hyperbolic tangent of one number."""

    def __init__(self):
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, x):
        return self.tanh(x) * self.tanh(x.mean())


def test_a_number_is_no_map():
    gate, x = Gate().train(), batch(2, 6, 4, 4)
    own = gate(x)
    with substituted(gate):
        torch.testing.assert_close(gate(x), own)
    assert count_substitutes(gate, [batch(4, 6, 4, 4).requires_grad_()], autocast_dtype=None) == 1


def test_without_onednn_the_tangent_is_torchs_own(monkeypatch):
    def fails(self):
        raise RuntimeError("no oneDNN here")

    monkeypatch.setattr(torch.Tensor, "to_mkldnn", fails)
    substitutes._has_tanh.cache_clear()
    layer, x = nn.Tanh(), batch(2, 6, 4, 4)
    try:
        with substituted(layer):
            assert layer(x).grad_fn.name() == "TanhBackward0"
    finally:
        substitutes._has_tanh.cache_clear()


class Whole(nn.Module):
    """Wants its full batch."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        assert len(x) == 4
        return self.pool(x)


def test_what_fails_on_two_images_or_cannot_be_copied_has_no_substitutes():
    assert count_substitutes(Whole(), [batch(4, 6, 8, 8)], autocast_dtype=None) == 0
    pool = nn.AvgPool2d(2)
    assert count_substitutes(pool, [batch(4, 6, 8, 8)], autocast_dtype=None) == 1
    pool.kept = batch(2, 2, 2, 2) * 2  # torch refuses to copy what was computed
    assert count_substitutes(pool, [batch(4, 6, 8, 8)], autocast_dtype=None) == 0


def settled(name="lenet5", **changes):
    recipe, model = small_recipe(model=name, **changes), create_model(name, num_classes=6, in_chans=3, image_size=32)
    x = batch(16, 3, 32, 32).detach()
    batches = [(x, torch.arange(16) % 6)]
    return settle(choose(recipe, model), recipe, model, batches=batches, expected=0.0, watch=Unwatched())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "7 by other operations"),
        ({"precision": "bf16"}, "8 by other operations"),
        ({"name": "resnet.pocket"}, None),
        ({"convolutions": "stock"}, None),
        ({"memory_format": "contiguous"}, None),
        ({"compile": "on"}, "torch's own"),
    ],
)
def test_substitutes_are_chosen_by_rule_and_the_record_says_so(changes, said, monkeypatch):
    monkeypatch.setattr(engine.precision, "cpu_computes_bf16", lambda: True)
    choices = settled(**changes)
    assert choices.substitutes == (said is not None and said != "torch's own")
    assert {each.about: each.chosen for each in choices.reasons}.get("layers") == said


@pytest.mark.parametrize("known", [True, False], ids=["known", "of before"])
def test_a_run_goes_on_as_it_began(known, tmp_path, monkeypatch):
    """Also one of before there were substitutes, whose record does not know of them: it goes on without."""
    recipe = small_recipe(model="lenet5")
    with monkeypatch.context() as then, pytest.raises(Stopped):
        if not known:
            then.setattr(engine, "count_substitutes", lambda *_, **__: 0)
        train(recipe, tmp_path / "cut", data=small_data(), watch=StopAfter(7))
    summary = codec.read(RunSummary, tmp_path / "cut" / "summary.json")
    assert summary.choices.substitutes == known
    if not known:
        plain = codec.to_plain(summary)
        del plain["choices"]["substitutes"]
        (tmp_path / "cut/summary.json").write_text(json.dumps(plain))
    train(recipe if known else replace(recipe, convolutions="stock"), tmp_path / "whole", data=small_data())
    resume(tmp_path / "cut", data=small_data())
    one, other = (load_state(tmp_path / name, note=print)["model"] for name in ("whole", "cut"))
    assert all(torch.equal(x, y) for x, y in zip(one.values(), other.values(), strict=True))
    assert codec.read(RunSummary, tmp_path / "cut" / "summary.json").choices.substitutes == known
