"""Torch's convolution against the textbook's double sum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from torch.nn import functional

from convatlas.arith.convolution import conv2d, convolve, cross_correlate
from convatlas.arith.shapes import effective_kernel
from convatlas.errors import UserError


def pair(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def layers(draw):
    """Channels, groups and windows of all kinds, on the smallest uneven images that they fit into and on larger ones."""
    groups = draw(st.integers(1, 3))
    ins, outs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, padding, dilation = draw(pair(1, 3)), draw(pair(0, 3)), draw(pair(1, 3))
    least = [max(1, effective_kernel(kernel[k], dilation[k]) - 2 * padding[k]) for k in (0, 1)]
    size = tuple(least[k] + draw(st.integers(0, 4)) for k in (0, 1))
    options = {"stride": draw(pair(1, 3)), "padding": padding, "dilation": dilation, "groups": groups}
    return ins, outs, size, kernel, options, draw(st.booleans()), draw(st.integers(0, 2**31))


@pytest.mark.untraced  # long, and other tests reach its lines
@settings(max_examples=2000, deadline=None)
@given(layers())
def test_torch_is_the_double_sum(layer):
    ins, outs, size, kernel, options, has_bias, seed = layer
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(ins, *size, dtype=torch.float64, generator=generator)
    weight = torch.randn(outs, ins // options["groups"], *kernel, dtype=torch.float64, generator=generator)
    bias = torch.randn(outs, dtype=torch.float64, generator=generator) if has_bias else None
    real = functional.conv2d(image[None], weight, bias, **options)[0]
    ours = torch.tensor(
        conv2d(image.tolist(), weight.tolist(), bias=None if bias is None else bias.tolist(), **options), dtype=torch.float64
    )
    assert ours.shape == real.shape
    torch.testing.assert_close(ours, real, rtol=1e-12, atol=1e-12)


@settings(max_examples=500, deadline=None)
@given(pair(1, 7), pair(1, 4), st.integers(0, 2**31))
def test_a_convolution_turns_the_kernel_round(size, kernel, seed):
    if size[0] < kernel[0] or size[1] < kernel[1]:
        return
    generator = torch.Generator().manual_seed(seed)
    image, window = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in (size, kernel))
    expected = torch.from_numpy(convolve2d(image.numpy(), window.numpy(), mode="valid"))
    found = torch.tensor(convolve(image.tolist(), window.tolist()), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_by_hand():
    image = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert cross_correlate(image, [[1, 0], [0, -1]]) == [[-4, -4], [-4, -4]]
    assert convolve(image, [[1, 0], [0, -1]]) == [[4, 4], [4, 4]]
    assert cross_correlate(image, [[1]], stride=(2, 2)) == [[1, 3], [7, 9]]
    assert cross_correlate([[5]], [[1, 2, 3]], padding=(0, 2)) == [[15, 10, 5]]


ONE = [[[1.0]]]
BAD = [
    ({"image": [], "weight": [ONE]}, "has no channel"),
    ({"image": ONE * 3, "weight": [ONE] * 2, "groups": 2}, "2 groups do not divide 3 input and 2 output channels"),
    ({"image": ONE, "weight": [ONE], "groups": 0}, "0 groups"),
    ({"image": ONE * 2, "weight": [ONE]}, "kernels have 1 maps, and a group has 2"),
    ({"image": [*ONE, [[1.0, 2.0]]], "weight": [ONE * 2]}, "not of one size"),
    ({"image": ONE * 2, "weight": [[*ONE, [[1.0, 2.0]]]]}, "kernels are not of one size"),
    ({"image": [[[1.0], [1.0, 2.0]]], "weight": [ONE]}, "a channel is no map"),
    ({"image": [[[]]], "weight": [ONE]}, "a channel is no map"),
    ({"image": ONE, "weight": [ONE], "bias": [1.0, 2.0]}, "2 biases for 1 output channels"),
    ({"image": ONE, "weight": [[[[1.0, 1.0]]]]}, "the kernel covers 2 columns, and the padded image has 1"),
    ({"image": ONE, "weight": [ONE], "stride": (0, 1)}, "stride is 0"),
    ({"image": ONE, "weight": [ONE], "padding": (0, -1)}, "padding -1"),
]


@pytest.mark.parametrize(("given_", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_fit_together_says_so(given_, message):
    with pytest.raises(UserError, match=message):
        conv2d(**given_)
