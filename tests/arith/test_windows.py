"""Which pixels windows read, against torch's gradients; shapes of uneven poolings, against torch's real ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from convatlas.arith.cost import conv_macs, conv_params, macs_per_value, separable_ratio
from convatlas.arith.shapes import (
    conv_output_size,
    least_size,
    padding_only,
    pixels_read,
    pool_output_size,
    same_padding,
    unread,
)

pytestmark = pytest.mark.untraced  # long computations, whose lines other tests reach

WINDOWS = st.fixed_dictionaries(
    {"kernel": st.integers(1, 6), "stride": st.integers(1, 7), "padding": st.integers(0, 9), "dilation": st.integers(1, 5)}
)


@settings(max_examples=2000, deadline=None)
@given(st.integers(1, 40), WINDOWS)
def test_pixels_read_are_those_with_a_gradient(size, window):
    size += least_size(**{k: v for k, v in window.items() if k != "stride"}) - 1
    outputs = conv_output_size(size, **window)
    image = torch.ones(1, 1, size, dtype=torch.float64, requires_grad=True)
    options = {k: v for k, v in window.items() if k != "kernel"}
    out = functional.conv1d(image, torch.ones(1, 1, window["kernel"], dtype=torch.float64), **options)
    (gradient,) = torch.autograd.grad(out.sum(), image)
    assert list(pixels_read(size, outputs=outputs, **window)) == (gradient[0, 0] > 0).long().tolist()
    assert padding_only(size, outputs=outputs, **window) == int((out == 0).sum())


def test_large_maps_take_no_time():
    read = pixels_read(100_000, outputs=45_001, kernel=5_000, stride=2, dilation=2)
    assert unread(read) == (0, 49_999, 1), "every second pixel, and the one that the floor leaves over"


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (b"\1\1\1", (0, 0, 0)),
        (b"\0\1\0\0\1\0\0\0", (1, 2, 3)),
        (b"\0\0", (2, 0, 0)),
        (b"", (0, 0, 0)),
    ],
)
def test_unread(read, expected):
    assert unread(read) == expected


@settings(max_examples=1500, deadline=None)
@given(st.integers(1, 60), WINDOWS)
def test_same_padding_is_the_least_that_keeps_the_size(size, window):
    options = {k: window[k] for k in ("kernel", "stride", "dilation")}
    fitting = [p for p in range(60) if conv_output_size(size, padding=p, **options) == math.ceil(size / window["stride"])]
    assert same_padding(size, **options) == (fitting[0] if fitting else None)


@given(WINDOWS)
def test_least_size_is_where_the_window_begins_to_fit(window):
    size = least_size(**{k: v for k, v in window.items() if k != "stride"})
    assert conv_output_size(size, **window) >= 1
    assert size == 1 or conv_output_size(size - 1, **window) < 1


@st.composite
def poolings(draw):
    """Uneven maps, windows and strides; average pooling, which has no dilation, as well as max pooling."""
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 5)))
    options = {
        "kernel": kernel,
        "stride": draw(st.tuples(st.integers(1, 6), st.integers(1, 9))),
        "padding": tuple(draw(st.integers(0, side // 2)) for side in kernel),
    }
    average = draw(st.booleans())
    options["dilation"] = (1, 1) if average else draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    least = [least_size(kernel=kernel[k], padding=options["padding"][k], dilation=options["dilation"][k]) for k in (0, 1)]
    return average, tuple(size + draw(st.integers(0, 12)) for size in least), options, draw(st.booleans())


@settings(max_examples=2500, deadline=None)
@given(poolings())
def test_uneven_poolings_have_torchs_shape(pooling):
    average, size, options, ceil_mode = pooling
    image = torch.empty(1, 1, *size, device="meta")
    kernel, stride, padding, dilation = options.values()
    if average:
        real = functional.avg_pool2d(image, kernel, stride, padding, ceil_mode)
    else:
        real = functional.max_pool2d(image, kernel, stride, padding, dilation, ceil_mode)
    sides = [{name: value[k] for name, value in options.items()} for k in (0, 1)]
    ours = [pool_output_size(size[k], **sides[k], ceil_mode=ceil_mode) for k in (0, 1)]
    assert ours == list(real.shape[2:])


@settings(max_examples=500, deadline=None)
@given(poolings())
def test_what_an_average_pooling_reads(pooling):
    """Windows that ceil mode adds reach beyond the padding; they read what there is."""
    average, size, options, ceil_mode = pooling
    if not average:
        return
    image = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    out = functional.avg_pool2d(image, options["kernel"], options["stride"], options["padding"], ceil_mode)
    (gradient,) = torch.autograd.grad(out.sum(), image)
    sides = [{name: value[k] for name, value in options.items()} for k in (0, 1)]
    rows, columns = (pixels_read(size[k], outputs=out.shape[2 + k], **sides[k]) for k in (0, 1))
    assert [[r * c for c in columns] for r in rows] == (gradient[0, 0] > 0).long().tolist()


@given(st.integers(1, 512), st.integers(1, 512), st.integers(1, 49), st.integers(1, 3000))
def test_the_ratio_is_that_of_weights_and_of_macs(ins, outs, area, pixels):
    def cost(function, **more):
        depthwise = function(in_channels=ins, out_channels=ins, kernel_area=area, groups=ins, **more)
        pointwise = function(in_channels=ins, out_channels=outs, kernel_area=1, groups=1, **more)
        return (depthwise + pointwise) / function(in_channels=ins, out_channels=outs, kernel_area=area, groups=1, **more)

    expected = pytest.approx(separable_ratio(out_channels=outs, kernel_area=area), rel=1e-12)
    assert cost(conv_params) == expected
    assert cost(conv_macs, out_pixels=pixels) == expected


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_torchs(groups, bias):
    layer = torch.nn.Conv2d(8, 12, (3, 5), groups=groups, bias=bias, device="meta")
    ours = conv_params(in_channels=8, out_channels=12, kernel_area=15, groups=groups, bias=bias)
    assert ours == sum(p.numel() for p in layer.parameters())


def test_macs_for_each_value_moved():
    # A 3x3 kernel on one channel of 10 x 10 pixels that keeps its size: 900 MACs for 9 weights, 100 read, 100 written.
    assert macs_per_value(900, weights=9, values_in=100, values_out=100) == pytest.approx(900 / 209)
