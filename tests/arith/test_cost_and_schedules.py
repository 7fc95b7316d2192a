import pytest

from convatlas.arith.cost import conv_macs, linear_macs
from convatlas.arith.schedules import SCHEDULES, factor_at


def test_first_convolution_of_resnet50_by_hand():
    # 112 x 112 outputs, 64 channels, each a sum over 7 x 7 x 3 products.
    assert conv_macs(in_channels=3, out_channels=64, kernel_area=49, groups=1, out_pixels=112 * 112) == 118_013_952


def test_depthwise_costs_one_input_channel_each():
    full = conv_macs(in_channels=32, out_channels=32, kernel_area=9, groups=1, out_pixels=100)
    assert conv_macs(in_channels=32, out_channels=32, kernel_area=9, groups=32, out_pixels=100) * 32 == full


def test_linear_is_rows_times_weights():
    assert linear_macs(in_features=400, out_features=120) == 48_000
    assert linear_macs(in_features=4, out_features=5, rows=3) == 60


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_rise_to_one_and_never_leave_the_unit_interval(name):
    factors = [factor_at(name, i / 1000, warmup=0.2) for i in range(1001)]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) >= 0
    assert factors[200] == pytest.approx(1.0)
    assert factors[:200] == sorted(factors[:200])
    assert factors[200:] == sorted(factors[200:], reverse=True)


@pytest.mark.parametrize(("name", "end"), [("cosine", 0.0), ("one-cycle", 0.001), ("constant", 1.0)])
def test_where_schedules_end(name, end):
    assert factor_at(name, 1.0, warmup=0.1) == pytest.approx(end)
    assert factor_at(name, 1.7, warmup=0.1) == pytest.approx(end), "past the budget the schedule stays where it ended"


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_warmup_begins_at_the_peak(name):
    assert factor_at(name, 0.0, warmup=0.0) == 1.0
