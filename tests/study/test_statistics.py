import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convatlas.study.statistics import accuracy_interval, wilson


@given(st.integers(1, 5000), st.data())
def test_wilson_is_scipys(n, data):
    hits = data.draw(st.integers(0, n))
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_several_seeds_take_students_t():
    values = [0.80, 0.82, 0.84]
    interval = accuracy_interval(values, n_images=1000)
    low, high = stats.t.interval(0.95, 2, loc=0.82, scale=stats.sem(values))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.82, low, high))
    assert (interval.n, interval.method) == (3, "Student's t over seeds")


def test_one_seed_is_said_to_be_one():
    interval = accuracy_interval([0.9], n_images=400)
    assert interval.low < 0.9 < interval.high
    assert interval.n == 400
    assert "one seed" in interval.method


def test_intervals_stay_within_what_accuracies_can_be():
    interval = accuracy_interval([0.0, 1.0], n_images=10)
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert accuracy_interval([1.0], n_images=10).high <= 1.0
