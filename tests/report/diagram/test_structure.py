"""Graphs taken apart into rows, branches and tangles, and laid out without a wire through a box."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convatlas.report.diagram.flow import flow, whole_of
from convatlas.report.diagram.graph import Graph, Node
from convatlas.report.diagram.pieces import NARROW, WIDE
from convatlas.report.diagram.structure import Parallel, Series, Tangle
from convatlas.report.diagram.words import Sort

from .geometry import faults

SIGNS = ("+", "×", "concatenate")


def graph(feeds):
    """Boxes by number from what feeds each; those that take several are joins."""
    nodes = {}
    for key, given_by in feeds.items():
        join = len(given_by) > 1
        sort = Sort.JOIN if join else Sort.CONV
        nodes[key] = Node(SIGNS[key % 3] if join else f"box {key}", (f"no {key}",), sort, ())
    return Graph(nodes, {key: list(each) for key, each in feeds.items()})


def boxes(item):
    """All boxes of an item, in order."""
    match item:
        case int():
            return [item]
        case Series():
            return [box for each in item.items for box in boxes(each)]
        case Parallel():
            return [box for each in item.branches for box in boxes(each)]
        case Tangle():
            return list(item.nodes)


def test_a_row():
    assert whole_of(graph({0: [], 1: [0], 2: [1]})) == Series((0, 1, 2))


def test_branches_in_the_order_in_which_they_are_joined():
    whole = whole_of(graph({0: [], 1: [0], 2: [0], 3: [2], 4: [3, 1]}))
    assert whole == Series((0, Parallel((Series((2, 3)), Series((1,)))), 4))


def test_a_shortcut_is_an_empty_branch():
    assert whole_of(graph({0: [], 1: [0], 2: [1, 0]})) == Series((0, Parallel((Series((1,)), Series(()))), 2))


def test_branches_within_branches():
    whole = whole_of(graph({0: [], 1: [0], 2: [1], 3: [2, 1], 4: [3, 0]}))
    inner = Parallel((Series((2,)), Series(())))
    assert whole == Series((0, Parallel((Series((1, inner, 3)), Series(()))), 4))


def test_a_bridge_is_a_tangle():
    whole = whole_of(graph({0: [], 1: [0], 2: [0], 3: [1], 4: [1, 2], 5: [3, 4]}))
    assert [type(item) for item in whole.items] == [int, Tangle, int]
    assert set(boxes(whole)) == set(range(6))


def test_two_ways_in_and_two_ways_out():
    whole = whole_of(graph({0: [], 1: [], 2: [0, 1], 3: [2], 4: [2]}))
    assert whole == Series((Parallel((Series((0,)), Series((1,)))), 2, Parallel((Series((3,)), Series((4,))))))


@st.composite
def graphs(draw):
    """Any graph of up to nine boxes in which each but the first is fed by up to three before it."""
    many = draw(st.integers(1, 9))
    return graph({
        key: draw(st.lists(st.integers(0, key - 1), min_size=1, max_size=3, unique=True)) if key else [] for key in range(many)
    })  # fmt: skip


@pytest.mark.untraced  # long, and other tests reach its lines
@settings(max_examples=300, deadline=None)
@given(graphs(), st.sampled_from([NARROW - 28, (WIDE - 116) / 2, WIDE - 56]))
def test_any_graph_is_drawn_whole_and_clean(made, width):
    assert sorted(boxes(whole_of(made))) == sorted(made.nodes)
    picture = flow(made, width=width)
    assert picture.width <= width + 0.01
    assert faults(picture) == []
    headings = [text.content for text in picture.texts if text.content.startswith("box")]
    assert len(headings) == sum(node.sort is Sort.CONV for node in made.nodes.values())
    assert edges_of(picture) == {(before, key) for key, given_by in made.feeds.items() for before in given_by}


def edges_of(picture):
    """Which boxes the wires lead from and to, by where they begin and end."""
    places = {int(shape.told.rpartition("no ")[2]): shape.box for shape in picture.shapes if shape.told}

    def at(point):
        x, y = point
        (key,) = (key for key, box in places.items() if box.left - 1 < x < box.right + 1 and box.top - 1 < y < box.bottom + 1)
        return key

    return {(at(wire.points[0]), at(wire.points[-1])) for wire in picture.wires}
