"""What becomes a box, what goes into another's box, and what is not drawn."""

from convatlas.records.ledger import IMAGE
from convatlas.report.diagram.graph import MOST, chain, graph_of
from convatlas.report.diagram.tree import Tree
from convatlas.report.diagram.words import Sort, words

from .ledgers import call, conv, ledger, residual, row, window


def drawn(rows, parts=(), name=""):
    return graph_of(Tree(ledger(rows, parts)), name)


def told(graph):
    return [(node.heading, node.tail) for node in graph.nodes.values()]


def feeds(graph):
    """For each box, the headings of what feeds it."""
    return {node.heading: [graph.nodes[each].heading for each in graph.feeds[key]] for key, node in graph.nodes.items()}


def test_norm_and_activation_go_into_the_box_before_them():
    graph = drawn(residual(), [("block", "Block")], "block")
    assert told(graph) == [
        ("image", ()),
        ("3×3 conv", ("BatchNorm", "ReLU")),
        ("3×3 conv", ("BatchNorm",)),
        ("+", ()),
        ("ReLU", ()),
        ("out", ()),
    ]
    assert feeds(graph)["+"] == ["3×3 conv", "image"]
    assert not chain(graph)


def test_an_activation_that_two_take_from_stays_with_what_made_it():
    rows = [conv([IMAGE], name="a"), row("ReLU", [0], name="r"), conv([1], name="b"), call("add", [2, 1])]
    graph = drawn(rows)
    assert told(graph)[1] == ("3×3 conv", ("ReLU",))
    assert feeds(graph)["+"] == ["3×3 conv", "3×3 conv"]
    rows = [conv([IMAGE], name="a"), row("ReLU", [0], name="r"), call("add", [1, 0])]
    assert told(drawn(rows))[1:3] == [("3×3 conv", ()), ("ReLU", ())], "the convolution's own map is taken too"


def test_views_are_not_drawn():
    rows = [
        conv([IMAGE], name="a"),
        call("permute", [0], out=(16, 16, 8)),
        row("LayerNorm", [1], name="n", into=(16, 16, 8), out=(16, 16, 8)),
        row("Linear", [2], name="l", into=(16, 16, 8), out=(16, 16, 32), macs=5),
        call("permute", [3], into=(16, 16, 32), out=(32, 16, 16)),
    ]
    graph = drawn(rows)
    assert told(graph) == [("image", ()), ("3×3 conv", ("LayerNorm",)), ("linear", ()), ("out", ())]
    assert list(graph.nodes.values())[2].details == ("8\u00a0→\u00a032",)
    assert list(graph.nodes.values())[3].details == ("32\u00a0×\u00a016\u00a0×\u00a016",), (
        "the shape that leaves is the last view's"
    )
    assert chain(graph)


def test_a_small_part_is_one_box_by_its_class():
    rows = [conv([IMAGE], name="a"), call("mul", [0], name="s"), call("tanh", [1], name="s"), call("mul", [2], name="s")]
    assert told(drawn(rows, [("s", "Squash")]))[1] == ("3×3 conv", ("Squash",))
    pad = [call("slice", [IMAGE], name="p", out=(8, 8, 8)), call("pad", [0], name="p", into=(8, 8, 8), out=(16, 8, 8))]
    graph = drawn([*pad, conv([1], name="a")], [("p", "ZeroPadding")])
    box = list(graph.nodes.values())[1]
    assert (box.heading, box.details, box.sort) == ("ZeroPadding", ("to\u00a016\u00a0×\u00a08\u00a0×\u00a08",), Sort.OTHER)


def test_a_gate_multiplies():
    rows = [
        conv([IMAGE], name="a"),
        call("mean", [0], out=(8, 1, 1)),
        conv([1], name="g", kernel=1, into=(8, 1, 1), out=(8, 1, 1)),
        call("sigmoid", [2], into=(8, 1, 1), out=(8, 1, 1)),
        call("mul", [0, 3]),
    ]
    graph = drawn(rows)
    assert feeds(graph)["×"] == ["3×3 conv", "1×1 conv"]
    assert feeds(graph)["global average pool"] == ["3×3 conv"]


def test_what_two_rows_of_the_image_feed_has_two_entries():
    rows = [conv([IMAGE], name="a"), conv([IMAGE], name="b"), call("add", [0, 1], name="join"), row("ReLU", [2], name="join.r")]
    graph = drawn(rows, [("join", "Join")], "join")
    assert [node.heading for node in graph.nodes.values()] == ["in", "in", "+", "ReLU", "out"]


def test_large_parts_are_folded_and_equal_neighbours_counted():
    rows, last = [], IMAGE
    for block in range(8):
        for k in range(3):
            rows.append(conv([last], name=f"stage.{block}.conv{k}"))
            last = len(rows) - 1
    parts = [("stage", "Sequential"), *((f"stage.{i}", "Block") for i in range(8))]
    graph = drawn(rows, parts, "stage")
    assert [(node.heading, node.times) for node in graph.nodes.values()] == [("image", 1), ("Block", 8), ("out", 1)]
    assert len(drawn(rows[: MOST - 2], parts, "stage").nodes) == MOST


def test_signature_knows_structure_and_not_width():
    one = drawn([conv([IMAGE], out=(4, 16, 16))])
    same = drawn([conv([IMAGE], kernel=5, out=(9, 16, 16))])
    other = drawn([conv([IMAGE], stride=2, out=(4, 8, 8))])
    assert one.signature() == same.signature() != other.signature()


def test_words():
    def of(made):
        return " | ".join((words(made).heading, *words(made).details)).replace("\u00a0", " ")

    assert of(conv([0], groups=8)) == "3×3 depthwise | 8 → 8"
    assert of(conv([0], groups=2, stride=2)) == "3×3 conv | 8 → 8 | stride 2 | 2 groups"
    assert of(row("MaxPool2d", [0], window=window(3, stride=2))) == "3×3 max pool | stride 2"
    assert of(row("MaxPool2d", [0], window=window(2, stride=2))) == "2×2 max pool"
    assert of(row("AdaptiveAvgPool2d", [0], out=(8, 1, 1))) == "global average pool"
    assert of(row("AdaptiveAvgPool2d", [0], out=(8, 6, 6))) == "average pool | to 6 × 6"
    assert of(call("aten.silu_", [0])) == "SiLU"
    assert of(call("mul", [0], params=8)) == "learned scale"
    assert of(call("cat", [0, 1])) == "concatenate"
    assert of(call("frobnicate", [0])) == "frobnicate"


def test_towers_have_their_own_channels():
    grouped = drawn([conv([IMAGE], groups=2, out=(6, 16, 16))])
    node = list(grouped.nodes.values())[1]
    assert (node.towers, node.tower) == (2, ("4\u00a0→\u00a03",))
    assert next(iter(drawn([conv([IMAGE], groups=8)]).nodes.values())).towers == 1
