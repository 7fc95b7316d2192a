import random

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convatlas.arith.order import FEWEST, median_interval, quartiles

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(VALUES)
def test_quartiles_are_numpys(values):
    assert quartiles(values) == pytest.approx(tuple(numpy.quantile(values, [0.25, 0.5, 0.75])), abs=1e-6)


@pytest.mark.parametrize("n", [6, 7, 8, 9, 11, 20, 51, 200, 1000])
def test_the_interval_is_the_narrowest_that_covers_95_of_100(n):
    low, middle, high = median_interval(random.Random(n).sample(range(n), n))
    assert (low, middle) == (n - 1 - high, (n - 1) / 2), "as many on both sides, whatever the order"
    assert 1 - 2 * stats.binom.cdf(low, n, 0.5) >= 0.95, "as rare as that so many lie on the far side"
    assert 1 - 2 * stats.binom.cdf(low + 1, n, 0.5) < 0.95, "one step further in would be too narrow"


def test_the_fewest():
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 3.5, 6.0)
    with pytest.raises(AssertionError, match="5 values"):
        median_interval([1.0] * (FEWEST - 1))
