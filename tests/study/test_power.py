import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from convatlas.errors import UserError
from convatlas.study.power import SeedsNeeded, Spread, in_words, power_of, power_table, seeds_needed, spread_of


def test_dalgaards_paired_example():
    # Dalgaard 2008, "Introductory Statistics with R", section 9.3: power.t.test(delta=10, sd=10*sqrt(2), power=0.85,
    # type="paired") gives n = 19.96892.
    assert seeds_needed(10 * math.sqrt(2), difference=10, power=0.85) == 20
    assert power_of(19, spread=10 * math.sqrt(2), difference=10) < 0.85 < power_of(20, spread=10 * math.sqrt(2), difference=10)


def by_integration(n, *, ratio, level):
    """P(T > critical) without the noncentral t: the sample's deviation is a chi, the mean a normal."""
    critical = stats.t.isf(level / 2, n - 1)
    chance = lambda chi: stats.norm.sf(critical * chi / math.sqrt(n - 1) - ratio * math.sqrt(n)) * stats.chi.pdf(chi, n - 1)  # noqa: E731
    middle = math.sqrt(n - 1)
    return integrate.quad(chance, max(0, middle - 9), middle + 9, limit=400)[0]


@pytest.mark.parametrize("n", [2, 3, 5, 20, 400])
@pytest.mark.parametrize("ratio", [0.05, 0.4, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
def test_the_noncentral_t_by_integration_and_statsmodels(n, ratio, level):
    found = power_of(n, spread=1, difference=ratio, level=level)
    assert found == pytest.approx(by_integration(n, ratio=ratio, level=level), abs=1e-6)
    if ratio * math.sqrt(n) < 15:
        assert found == pytest.approx(TTestPower().power(ratio, n, level / 2, alternative="larger"), abs=1e-9)


@given(st.floats(0.02, 20), st.floats(0.5, 0.99), st.sampled_from([0.05, 0.01]))
def test_no_fewer_would_do(ratio, power, level):
    n = seeds_needed(1.0, difference=ratio, power=power, level=level)
    if n is None:
        assert power_of(10_000, spread=1, difference=ratio, level=level) < power
        return
    assert power_of(n, spread=1, difference=ratio, level=level) >= power
    assert n == 2 or power_of(n - 1, spread=1, difference=ratio, level=level) < power


def test_two_at_least_and_ten_thousand_at_most():
    for huge in (1e2, 1e4, 1e8):
        assert seeds_needed(1.0, difference=huge) == 2
    assert seeds_needed(1.0, difference=0.0285) == 9666
    assert seeds_needed(1.0, difference=0.01) is None


def test_power_is_a_chance_however_far_apart():
    rng = random.Random(0)
    for _ in range(500):
        ratio, level = 10 ** rng.uniform(-6, 8), 10 ** rng.uniform(-4, -1)
        assert level / 2 - 1e-9 <= power_of(rng.choice([2, 3, 8, 100, 10_000]), spread=1, difference=ratio, level=level) <= 1


@pytest.mark.parametrize(
    "wrong", [{"spread": 0.0}, {"spread": -1.0}, {"difference": 0.0}, {"power": 1.0}, {"power": 0.04}, {"level": 0.0}]
)
def test_nonsense_is_refused(wrong):
    asked = {"spread": 1.0, "difference": 1.0, "power": 0.8, "level": 0.05} | wrong
    with pytest.raises(UserError):
        seeds_needed(asked.pop("spread"), **asked)


def test_the_spread_and_its_interval():
    # Boost.Math, "Confidence intervals on the standard deviation", from the gear data of NIST's Engineering Statistics Handbook:
    # 100 values with s = 0.006278908; at 95 % from 0.00551 to 0.00729.
    rng = random.Random(1)
    values = [rng.gauss(0, 1) for _ in range(100)]
    scale = 0.006278908 / spread_of(values).value
    found = spread_of([scale * value for value in values])
    assert found.value == pytest.approx(0.006278908)
    assert (found.low, found.high) == pytest.approx((0.00551, 0.00729), abs=5e-6)


def test_three_seeds_tell_little_of_the_spread():
    found = spread_of([0.01, 0.02, 0.015])
    assert found.value == pytest.approx(0.005)
    assert (found.low / found.value, found.high / found.value) == pytest.approx((0.5207, 6.2847), abs=1e-4)


@pytest.mark.parametrize("few", [[], [0.1], [0.9 - 0.8, 0.8 - 0.7]])
def test_no_spread_to_go_by(few):
    with pytest.raises(UserError, match="no spread to go by"):
        spread_of(few)


def test_the_table_and_its_sentences():
    spread = Spread(0.005, 0.0026, 0.0314, 3)
    rows = power_table(spread, differences=[0.005, 0.0001])
    assert rows[0] == SeedsNeeded(0.005, 0.8, 10, 5, 312)
    assert in_words(rows[0]) == (
        "A difference of 0.5 points is found in 80 of 100 studies with between 5 and 312 seeds, most likely 10."
    )
    assert rows[1] == SeedsNeeded(0.0001, 0.8, None, 5308, None)
    assert in_words(rows[1]).endswith("with between 5,308 and more than 10,000 seeds, most likely more than 10,000.")
    assert in_words(SeedsNeeded(0.2, 0.9, 2, 2, 2)) == "A difference of 20 points is found in 90 of 100 studies with 2 seeds."
