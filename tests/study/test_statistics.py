import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convatlas.arith.proportion import wilson
from convatlas.study.statistics import accuracy_interval, calibration_error, mean_interval, optimism, per_class


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


def test_a_mean_over_seeds_is_students():
    # R: t.test(extra ~ group, paired = TRUE) of its `sleep` data, whose differences these are: -2.4598858 to -0.7001142.
    differences = [-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4]
    found = mean_interval(differences)
    assert (found.mean, found.low, found.high) == pytest.approx((-1.58, -2.4598858, -0.7001142), abs=5e-8)
    assert found.method == "Student's t over seeds"


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7], [0.9 - 0.8, 0.8 - 0.7]])
def test_no_spread_is_said_to_give_no_interval(values):
    found = mean_interval(values)
    assert found.low == found.mean == found.high
    assert found.method.endswith(": no interval")
    assert found.n == len(values)


def test_equal_seeds_have_the_interval_of_their_images():
    found = accuracy_interval([0.7, 0.7, 0.7], n_images=100)
    assert (found.mean, found.low, found.high) == (0.7, *wilson(0.7, 100))
    assert found.method == "Wilson score over the test images of 3 seeds without spread"
    assert found.n == 100


def test_an_interval_ends_where_the_mean_must():
    assert mean_interval([0.0, 1.0], within=(0.0, 1.0)).high == 1.0
    assert mean_interval([0.0, 1.0]).high > 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_the_mean_is_within_its_interval(values):
    found = mean_interval(values, within=(0.0, 1.0))
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12


def test_optimism_is_over_runs():
    found = optimism([0.80, 0.83, 0.79], [0.79, 0.80, 0.79])
    assert found.mean == pytest.approx(0.04 / 3)
    assert found.low == pytest.approx(stats.t.interval(0.95, 2, loc=0.04 / 3, scale=stats.sem([0.01, 0.03, 0.0]))[0])
    assert found.method == "Student's t over runs"
    assert optimism([0.8], [0.7]).method == "one run: no interval"


def test_calibration_by_hand():
    # Five bins. (0, 0.2]: 0.1 wrong and 0.2 right: 0.3 of confidence against 1. (0.6, 0.8]: 0.7, 0.7, 0.8, two of three right:
    # 2.2 against 2. (0.8, 1]: 0.9 wrong, 1.0 right: 1.9 against 1. Sum of the gaps: 0.7 + 0.2 + 0.9, over 7 images.
    confidence = [0.1, 0.2, 0.7, 0.7, 0.8, 0.9, 1.0]
    right = [False, True, True, False, True, False, True]
    assert calibration_error(confidence, right, bins=5) == pytest.approx(1.8 / 7)


def test_calibration_at_the_ends():
    assert calibration_error([0.0, 1.0], [False, True]) == 0.0
    assert calibration_error([0.0, 1.0], [True, False]) == 1.0
    # One bin: errors of both signs cancel, as they must.
    assert calibration_error([0.0, 1.0], [True, False], bins=1) == 0.0
    # A bin holds its upper end: 0.5 and 0.4 stand together in (0, 0.5], and 0.6 by itself.
    assert calibration_error([0.5, 0.4, 0.6], [True, False, True], bins=2) == pytest.approx((0.1 + 0.4) / 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
def test_calibration_as_the_papers_formula(answers, bins):
    total = 0.0
    for m in range(1, bins + 1):
        inside = [(c, r) for c, r in answers if (m - 1) / bins < c <= m / bins or (m == 1 and c == 0)]
        if inside:
            accuracy, confidence = (sum(column) / len(inside) for column in zip(*((r, c) for c, r in inside), strict=True))
            total += len(inside) / len(answers) * abs(accuracy - confidence)
    confidences, right = zip(*answers, strict=True)
    assert calibration_error(confidences, right, bins=bins) == pytest.approx(total, abs=1e-9)


def test_each_class_has_its_accuracy():
    assert per_class([0, 0, 1, 1, 1, 3], [0, 1, 1, 1, 0, 3], classes=5) == (0.5, pytest.approx(2 / 3), None, 1.0, None)
