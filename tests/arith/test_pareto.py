import itertools

from hypothesis import given
from hypothesis import strategies as st

from convatlas.arith.pareto import pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


def test_a_front_by_hand():
    #          cheap, poor | dear, good | dearer, no better | as dear, worse | between
    points = [(1.0, 0.5), (3.0, 0.9), (4.0, 0.9), (3.0, 0.8), (2.0, 0.7)]
    assert pareto_front(points) == [0, 1, 4]


def test_equal_points_stand_together():
    assert pareto_front([(1.0, 0.5), (1.0, 0.5), (2.0, 0.4)]) == [0, 1]
    assert pareto_front([(2.0, 0.4), (2.0, 0.4), (1.0, 0.5)]) == [2]
    assert pareto_front([]) == []


@given(POINTS)
def test_every_point_is_on_the_front_or_beaten_by_one_that_is(points):
    front = pareto_front(points)
    for i, (cost, value) in enumerate(points):
        beaten = [j for j in front if points[j] != points[i] and points[j][0] <= cost and points[j][1] >= value]
        assert (i in front) == (not beaten)


@given(POINTS)
def test_walking_along_the_front_more_cost_buys_more_value(points):
    front = sorted({points[i] for i in pareto_front(points)})
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(front))
