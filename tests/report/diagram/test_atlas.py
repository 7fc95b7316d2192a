"""Every variant of the atlas, drawn wide and narrow: nothing meets, nothing is cut, and what a drawing must show is there."""

from functools import cache
from xml.etree import ElementTree

import pytest
import torch

from convatlas.errors import UserError
from convatlas.inspection.ledger import ledger
from convatlas.models.papers import golden_rows
from convatlas.models.registry import MODELS, create_model
from convatlas.report import figures
from convatlas.report.diagram.choice import opening, openings
from convatlas.report.diagram.dense import dense_block
from convatlas.report.diagram.network import network_picture, network_svg
from convatlas.report.diagram.pieces import NARROW, WIDE
from convatlas.report.diagram.stops import stops
from convatlas.report.diagram.tree import Tree
from convatlas.report.diagram.words import Sort
from tests.every import VARIANTS, ledger_of

from .geometry import faults

SVG = "{http://www.w3.org/2000/svg}"


@cache
def drawn(name, size=None):
    if size is None:
        return ledger_of(name)
    variant = MODELS[name]
    with torch.device("meta"):
        model = create_model(name, in_chans=variant.in_chans, image_size=size)
    return ledger(model, (variant.in_chans, size, size), name=name)


def opened(name):
    return openings(Tree(drawn(name)))


def headings(each):
    return [node.heading for node in each.graph.nodes.values()]


@pytest.mark.parametrize("name", VARIANTS)
def test_clean_and_whole(name):
    record, golden = drawn(name), golden_rows()[name]
    for width in (WIDE, NARROW):
        picture = network_picture(record, width=width)
        assert faults(picture) == []
        assert picture.width == width
        texts = [text.content.replace("\u00a0", " ") for text in picture.texts]
        assert not [text for text in texts if "…" in text], "nothing is shortened"
        assert name in texts
        assert any(f"{figures.short(golden.params)} parameters" in text for text in texts)
    made = stops(Tree(record))
    assert [stop.shape for stop in made if stop.title.startswith("stage ")] == list(golden.stage_shapes)
    assert made[0].shape == record.input_shape
    assert made[-1].shape == (golden.num_classes,)
    assert sum(stop.macs for stop in made) == golden.macs
    assert sum(stop.params for stop in made) == golden.params, "every parameter stands at a stop"


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize("name", ["resnet18", "vgg16", "googlenet.paper", "convnext_tiny", "alexnet", "densenet121"])
@pytest.mark.parametrize("size", [32, 97])
def test_other_image_sizes(name, size):
    for width in (WIDE, NARROW):
        assert faults(network_picture(drawn(name, size), width=width)) == []


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize("name", ["lenet5.paper", "resnet50", "densenet_bc_100_12"])
def test_every_part_can_be_opened(name):
    record = drawn(name)
    tree = Tree(record)
    parts = [part for part in tree.kinds if tree.rows(part)]
    for part in parts[:: max(1, len(parts) // 12)]:
        for width in (WIDE, NARROW):
            assert faults(network_picture(record, width=width, part=part)) == [], part


def test_the_commonest_block_is_opened_and_then_another_form():
    first, second = opened("resnet50")
    assert (first.name, first.kind, first.alike, first.many) == ("stages.0.1", "Bottleneck", 12, 16)
    assert headings(first) == ["in", "1×1 conv", "3×3 conv", "1×1 conv", "+", "ReLU", "out"]
    assert second.name == "stages.1.0"
    assert headings(second).count("1×1 conv") == 3, "its shortcut is a convolution"
    assert [each.kind for each in opened("efficientnet_v2_s")] == ["MBConv", "FusedMBConv"]


def test_inception_joins_four_branches_in_their_order():
    (inception,) = opened("googlenet.paper")
    graph = inception.graph
    assert inception.many == 9
    (join,) = (key for key, node in graph.nodes.items() if node.sort is Sort.JOIN)
    assert [graph.nodes[each].heading for each in graph.feeds[join]] == ["1×1 conv", "3×3 conv", "5×5 conv", "1×1 conv"]


def test_squeeze_excitation_comes_back_at_a_multiplication():
    graph = opened("efficientnet_b0")[0].graph
    (times,) = (key for key, node in graph.nodes.items() if node.heading == "×")
    direct, gate = (graph.nodes[each] for each in graph.feeds[times])
    assert (direct.heading, gate.tail) == ("3×3 depthwise", ("sigmoid",))


def test_convnext_has_no_permutes():
    (block,) = opened("convnext_tiny")
    assert headings(block) == ["in", "7×7 depthwise", "linear", "linear", "+", "out"]
    assert [node.tail for node in block.graph.nodes.values()][1:4] == [("LayerNorm",), ("GELU",), ("learned scale",)]


def test_networks_without_blocks_open_a_stage_or_all():
    assert [each.name for each in opened("vgg16")] == ["stages.2"]
    assert [each.name for each in opened("lenet5")] == [""]
    (stage,) = opened("lenet5.paper")
    assert stage.name == "stages.1"
    assert headings(stage).count("5×5 conv") == 3, "C3's maps see three, four or six maps of S2"


def test_two_towers():
    (stage,) = opened("alexnet.paper")
    assert [node.towers for node in stage.graph.nodes.values()] == [1, 1, 2, 2, 1, 1]
    texts = [text.content for text in network_picture(drawn("alexnet.paper")).texts]
    assert texts.count("192\u00a0→\u00a0128") == 2, "each tower with its own channels"


def test_folded_blocks_stay_in_their_stage():
    graph = opening(Tree(drawn("resnet50")), "stages").graph
    assert [(node.heading, node.times) for node in graph.nodes.values()][1:-1] == [("Bottleneck", n) for n in (3, 4, 6, 3)]


def test_dense_connections_are_seen():
    block = dense_block(Tree(drawn("densenet121")))
    assert block is not None
    assert (block.name, block.kind) == ("stages.0", "DenseLayer")
    assert block.widths == (64, 96, 128, 160, 192, 224, 256)
    arcs = [wire for wire in network_picture(drawn("densenet121")).wires if wire.bend]
    assert len(arcs) == 6 * 5 / 2, "from each of the six and the input to all but the next"
    assert dense_block(Tree(drawn("resnet18"))) is None
    second = dense_block(Tree(drawn("densenet121")), "stages.1")
    assert second is not None
    assert len(second.widths) == 13
    assert dense_block(Tree(drawn("densenet121")), "head") is None


def test_a_part_that_there_is_not():
    with pytest.raises(UserError, match=r"no part called 'stages\.1\.9'.*Did you mean stages\.1\."):
        opening(Tree(drawn("resnet18")), "stages.1.9")


def test_the_drawing_stands_alone():
    text = str(network_svg(drawn("resnet18")))
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    assert "resnet18" in root.find(f"{SVG}title").text
    assert "stem, stage 1, stage 2, stage 3, stage 4, head" in root.find(f"{SVG}desc").text
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text
    assert not {"href", "src", "url"} & {key for each in root.iter() for key in each.attrib}
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
