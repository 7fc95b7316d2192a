"""Convolutions by pairs of pixels against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convatlas.training import conv_trial, narrow, wide
from convatlas.training.narrow import narrow_conv, paired_weight, pairs, pixels, unpaired_weight


def drawn(*shape, seed=0, laid=torch.channels_last):
    numbers = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return numbers.to(memory_format=laid) if len(shape) == 4 else numbers


@st.composite
def convolutions(draw):
    """Sides, and what reaches beyond the map; outputs few and many, which are computed differently."""
    kernel = draw(st.tuples(st.integers(1, 5), st.sampled_from([1, 3, 5])))
    padding = tuple(draw(st.integers(0, side - 1)) for side in kernel)
    height, half = draw(st.integers(kernel[0], 7)), draw(st.integers((kernel[1] + 1) // 2, 4))
    n, channels, out = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 8, 9, 12]))
    return (n, channels, height, 2 * half), (out, channels, *kernel), padding


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.booleans(), st.booleans())
def test_output_and_gradients_equal_torchs(sides, with_bias, last):
    shape, kernel, padding = sides
    laid = torch.channels_last if last else torch.contiguous_format
    x, weight = drawn(*shape, laid=laid).requires_grad_(), drawn(*kernel, seed=1).requires_grad_()
    bias = drawn(kernel[0], seed=2).requires_grad_() if with_bias else None
    expected = F.conv2d(x, weight, bias, padding=padding)
    grad, taught = drawn(*expected.shape, seed=3), [x, weight, *([bias] if with_bias else [])]
    ours = narrow_conv(x, weight, bias=bias, padding=padding)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)
    for one, other in zip(torch.autograd.grad(ours, taught, grad), torch.autograd.grad(expected, taught, grad), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_pairs_are_the_same_memory():
    x = drawn(2, 3, 4, 6)
    assert pairs(x).data_ptr() == x.data_ptr()
    assert torch.equal(pixels(pairs(x)), x)
    assert pairs(x)[0, :, 1, 2].tolist() == [*x[0, :, 1, 4].tolist(), *x[0, :, 1, 5].tolist()]


def test_a_weights_gradient_is_the_sum_over_both_pixels():
    weight = drawn(3, 2, 4, 5)
    assert torch.equal(unpaired_weight(paired_weight(weight)), 2 * weight)


@pytest.mark.parametrize("out", [2, 9])
def test_it_is_differentiable_twice(out):
    x, weight = drawn(2, 2, 5, 6).requires_grad_(), drawn(out, 2, 3, 3, seed=1).requires_grad_()
    bias = drawn(out, seed=2).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda *args: narrow_conv(args[0], args[1], bias=args[2], padding=(1, 1)), (x, weight, bias)
    )


@pytest.mark.parametrize("taught", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("out", [2, 9])
def test_passes_that_nobody_wants_are_not_computed(taught, out, monkeypatch):
    computed = []
    for name in ("by_input", "by_weight", "_by_weight"):
        own = getattr(narrow, name)
        monkeypatch.setattr(narrow, name, lambda *args, own=own, name=name, **more: computed.append(name) or own(*args, **more))
    x, weight = drawn(2, 2, 5, 6).requires_grad_(taught[0]), drawn(out, 2, 3, 3, seed=1).requires_grad_(taught[1])
    result = narrow_conv(x, weight, bias=None, padding=(1, 1))
    if any(taught):
        result.sum().backward()
    by_weight = ["by_weight", "_by_weight"] if out == 2 else ["_by_weight"]
    assert computed == (["by_input"] if taught[0] else []) + (by_weight if taught[1] else [])


def test_a_bias_learns_alone():
    bias = drawn(2, seed=2).requires_grad_()
    out = narrow_conv(drawn(2, 2, 5, 6), drawn(2, 2, 3, 3, seed=1), bias=bias, padding=(1, 1))
    out.sum().backward()
    assert torch.equal(bias.grad, torch.full((2,), float(out[:, 0].numel()), dtype=torch.float64))


def test_autocast_around_backward_leaves_the_numbers_as_they_are():
    x, weight = drawn(2, 2, 5, 6).float().requires_grad_(), drawn(2, 2, 3, 3, seed=1).float()
    ours, own = narrow_conv(x, weight, bias=None, padding=(1, 1)), F.conv2d(x, weight, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = (torch.autograd.grad(out.sum(), x)[0] for out in (ours, own))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_gradients_for_each_image():
    x, weight = drawn(3, 2, 5, 6), drawn(2, 2, 3, 3, seed=1)

    def loss(weight, one, conv):
        return conv(one[None], weight).pow(2).sum()

    of_each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, None), randomness="error")
    ours = of_each(weight, x, lambda one, weight: narrow_conv(one, weight, bias=None, padding=(1, 1)))
    torch.testing.assert_close(ours, of_each(weight, x, lambda one, weight: F.conv2d(one, weight, padding=1)))


def test_grey_images_are_tried_as_training_lays_them_out(monkeypatch):
    """`contiguous` leaves maps of one channel as they are, and oneDNN then computes them in another layout."""
    seen = []
    monkeypatch.setattr(conv_trial.wide, "forward_pass", lambda x, *_, **__: seen.append(x) or x)
    monkeypatch.setattr(conv_trial, "_best", lambda *_, **__: conv_trial._Best(1, 1.0, 1.0))
    conv = torch.nn.Conv2d(1, 4, 3)
    (call,) = conv_trial.conv_calls(conv, drawn(4, 1, 8, 8).float(), autocast_dtype=None)
    conv_trial._tried(call, 0.0)
    assert seen[0].stride(1) == 1
    assert wide.can_widen(conv, seen[0])
