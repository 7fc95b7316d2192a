from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convatlas.arith.receptive_field import NOTHING, PIXELS, WHOLE, Extent, Region, all_units, through_window, union
from convatlas.errors import UserError

windows = st.fixed_dictionaries(
    {"kernel": st.integers(1, 5), "stride": st.integers(1, 3), "padding": st.integers(-2, 3), "dilation": st.integers(1, 3)}
)


def pixels_of(unit, chain):
    """The pixels that a unit after `chain` depends on, window by window, tap by tap."""
    units = {unit}
    for w in reversed(chain):
        units = {u * w["stride"] - w["padding"] + tap * w["dilation"] for u in units for tap in range(w["kernel"])}
    return units


def after(chain):
    extent = PIXELS
    for window in chain:
        extent = through_window(extent, **window)
    return extent


@given(st.lists(windows, max_size=4), st.integers(0, 5))
def test_windows_one_after_the_other(chain, unit):
    extent, pixels = after(chain), pixels_of(unit, chain)
    assert (extent.start + unit * extent.jump, extent.stop + unit * extent.jump) == (min(pixels), max(pixels) + 1)
    assert extent.receptive_field == max(pixels) + 1 - min(pixels)


@given(st.lists(windows, max_size=3), st.lists(windows, max_size=3), st.integers(0, 4))
def test_two_branches(left, right, unit):
    extents = after(left), after(right)
    if extents[0].jump != extents[1].jump:
        with pytest.raises(UserError, match="pixels apart"):
            union(extents)
        return
    joined, pixels = union(extents), pixels_of(unit, left) | pixels_of(unit, right)
    assert (joined.start + unit * joined.jump, joined.stop + unit * joined.jump) == (min(pixels), max(pixels) + 1)


@given(st.lists(windows, min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 40))
def test_all_units_of_a_map(chain, units, size):
    pixels = set().union(*(pixels_of(unit, chain) for unit in range(units)))
    seen = all_units(after(chain), units=units, pixels=size)
    if min(pixels) <= 0 and max(pixels) >= size - 1:
        assert seen == WHOLE
    else:
        assert seen == Extent(min(pixels), max(pixels) + 1, 0)


def test_known_networks():
    pool, conv = {"kernel": 2, "stride": 2}, {"kernel": 3, "padding": 1}
    vgg16 = [w for depth in (2, 2, 3, 3, 3) for w in [conv] * depth + [pool]]
    assert (after(vgg16[:-1]).receptive_field, after(vgg16[:-1]).jump) == (196, 16)
    assert after(vgg16) == Extent(-90, 122, 32)
    stem = [{"kernel": 7, "stride": 2, "padding": 3}, {"kernel": 3, "stride": 2, "padding": 1}]
    resnet18 = stem + [conv] * 4 + 3 * [conv | {"stride": 2}, conv, conv, conv]
    assert (after(resnet18).receptive_field, after(resnet18).jump) == (435, 32)


def test_branches_that_begin_at_different_pixels():
    assert union([Extent(-3, 0, 2), Extent(1, 4, 2)]) == Extent(-3, 4, 2)
    assert union([Extent(0, 1, 4), Extent(-1, 2, 4)]).receptive_field == 3


def test_the_whole_image_stays_whole():
    assert WHOLE.receptive_field is None
    assert through_window(WHOLE, kernel=3, stride=2, padding=1) == WHOLE
    gated = union([WHOLE, Extent(-1, 2, 4)])
    assert (gated.receptive_field, gated.jump) == (None, 4), "units still lie four pixels apart"
    assert through_window(gated, kernel=3, stride=2, padding=1) == Extent(-inf, inf, 8)
    assert all_units(gated, units=3, pixels=12) == WHOLE


def test_nothing_adds_nothing():
    assert NOTHING.receptive_field == 0
    assert union([]) == NOTHING
    assert union([NOTHING, Extent(2, 5, 3)]) == Extent(2, 5, 3)
    assert through_window(NOTHING, kernel=5, padding=2, stride=2) == NOTHING
    assert all_units(NOTHING, units=4, pixels=4) == NOTHING


def test_what_does_not_move_cannot_be_joined_with_what_does():
    with pytest.raises(UserError, match="0 and 4 pixels apart"):
        union([Extent(0, 9, 0), Extent(0, 3, 4)])
    with pytest.raises(UserError, match="4 and 8 pixels apart"):
        union([Extent(-inf, inf, 8), Extent(0, 3, 4)])


def test_a_region_has_two_sides():
    region = Region(Extent(0, 3, 1), Extent(-2, 7, 2))
    assert (region.receptive_field, region.jump) == (9, 2)
    assert Region(WHOLE, Extent(0, 3, 1)).receptive_field is None
