import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import empty, nn

from convatlas.arith.shapes import conv_output_size, effective_kernel, pool_output_size, size_formula

SIZES = st.integers(1, 64)
WINDOWS = st.fixed_dictionaries(
    {
        "kernel": st.integers(1, 7),
        "stride": st.integers(1, 5),
        "padding": st.integers(0, 3),
        "dilation": st.integers(1, 3),
    }
)


@settings(max_examples=300, deadline=None)
@given(SIZES, WINDOWS)
def test_conv_output_size_is_torchs(size, window):
    expected = conv_output_size(size, **window)
    if expected < 1:
        return
    conv = nn.Conv2d(1, 1, window["kernel"], window["stride"], window["padding"], window["dilation"], device="meta")
    assert conv(empty(1, 1, size, size, device="meta")).shape[-1] == expected


@settings(max_examples=300, deadline=None)
@given(SIZES, WINDOWS, st.booleans())
def test_pool_output_size_is_torchs(size, window, ceil_mode):
    if window["padding"] > window["kernel"] // 2 or pool_output_size(size, **window, ceil_mode=ceil_mode) < 1:
        return
    pool = nn.MaxPool2d(
        **{"kernel_size": window["kernel"], **{k: v for k, v in window.items() if k != "kernel"}}, ceil_mode=ceil_mode
    )
    if effective_kernel(window["kernel"], window["dilation"]) > size + 2 * window["padding"]:
        return
    assert pool(empty(1, 1, size, size, device="meta")).shape[-1] == pool_output_size(size, **window, ceil_mode=ceil_mode)


def test_formula_has_its_numbers_filled_in():
    assert size_formula(224, kernel=7, stride=2, padding=3) == "floor((224 - 7 + 2*3) / 2) + 1 = 112"
    assert size_formula(112, kernel=3, stride=2, padding=0, ceil_mode=True) == "ceil((112 - 3 + 2*0) / 2) + 1 = 56"


@given(SIZES, WINDOWS, st.booleans())
def test_formula_computes_what_it_says(size, window, ceil_mode):
    ceil_mode = ceil_mode and window["padding"] <= window["kernel"] // 2  # torch pools with no other
    text = size_formula(size, **window, ceil_mode=ceil_mode)
    rounding, top, stride, result = re.fullmatch(r"(floor|ceil)\(\((.*)\) / (\d+)\) \+ 1 = (-?\d+)", text).groups()
    shown = getattr(math, rounding)(eval(top, {}) / int(stride)) + 1
    assert shown == int(result) == pool_output_size(size, **window, ceil_mode=ceil_mode)
