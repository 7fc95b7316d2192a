import pytest
import torch
from torch import nn

from convatlas.inspection.difference import difference
from convatlas.inspection.trace import trace
from convatlas.models.registry import create_model
from convatlas.records import codec
from convatlas.records.model import ModelDiff


class Staged(nn.Module):
    def __init__(self, *stages, stem=None, head=None):
        super().__init__()
        self.stem = stem or nn.Identity()
        self.stages = nn.Sequential(*stages)
        self.head = head or nn.Identity()

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


def conv(cin, cout, kernel=3, **options):
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, **options)


def block(cin, cout, **options):
    return [conv(cin, cout, **options), nn.BatchNorm2d(cout), nn.ReLU()]


def compare(first, second, size=16):
    return difference(trace(first, (3, size, size)), trace(second, (3, size, size)))


def told(part):
    """The changes as (operation, settings) before and after."""
    return [
        tuple(layer and (layer.operation, layer.settings) for layer in (change.first, change.second)) for change in part.changes
    ]


def only(record):
    (part,) = record.parts
    return part


def test_equal_models():
    record = compare(Staged(nn.Sequential(*block(3, 8))), Staged(nn.Sequential(*block(3, 8))))
    assert record.same_layers
    assert only(record).same == 3


def test_names_do_not_matter():
    first = nn.Sequential(*block(3, 8), *block(8, 8))
    second = nn.Sequential(nn.Sequential(*block(3, 8)), nn.Identity(), nn.ModuleDict({"b": nn.Sequential(*block(8, 8))})["b"])
    record = compare(first, second)
    assert record.same_layers
    assert only(record).part == "network"


def test_a_stride_that_moves():
    """The case of resnet50.paper: two layers change, those between them work on other maps."""
    first = nn.Sequential(conv(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    second = nn.Sequential(conv(3, 8, 1, stride=2), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.BatchNorm2d(8), nn.ReLU())
    part = only(compare(Staged(first), Staged(second)))
    assert told(part) == [
        (("Conv2d", "1x1"), ("Conv2d", "1x1 stride 2")),
        (("Conv2d", "3x3 stride 2 padding 1"), ("Conv2d", "3x3 padding 1")),
    ]
    assert (part.part, part.same, part.resized) == ("stage 1", 4, 2)
    assert part.first.params == part.second.params
    assert part.first.macs - part.second.macs == (256 - 64) * 3 * 8
    assert (part.first.receptive_field, part.second.receptive_field) == (3, 5)


def test_a_block_that_is_added_in_the_middle():
    first = nn.Sequential(*block(3, 8), *block(8, 16))
    second = nn.Sequential(*block(3, 8), *block(8, 8), *block(8, 16))
    part = only(compare(first, second))
    assert part.same == 6
    assert told(part) == [(None, ("Conv2d", "3x3 padding 1")), (None, ("BatchNorm2d", "")), (None, ("ReLU", ""))]
    assert [change.second.params for change in part.changes] == [8 * 8 * 9 + 8, 16, 0]


def test_a_norm_that_is_left_out():
    part = only(compare(nn.Sequential(*block(3, 8), *block(8, 8)), nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU())))
    assert told(part) == [(("BatchNorm2d", ""), None)] * 2
    assert part.same == 4


def test_other_kernels_and_kinds_are_counterparts():
    first = nn.Sequential(conv(3, 8), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(conv(3, 8, 5), nn.GELU(), nn.MaxPool2d(3, 2))
    assert told(only(compare(first, second))) == [
        (("Conv2d", "3x3 padding 1"), ("Conv2d", "5x5 padding 2")),
        (("ReLU", ""), ("GELU", "")),
        (("MaxPool2d", "2x2 stride 2"), ("MaxPool2d", "3x3 stride 2")),
    ]


def test_wider_layers_differ_but_what_has_no_parameters_does_not():
    part = only(compare(nn.Sequential(*block(3, 8)), nn.Sequential(*block(3, 16))))
    assert [change.first.operation for change in part.changes] == ["Conv2d", "BatchNorm2d"]
    assert (part.same, part.resized) == (1, 1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (conv(3, 8), conv(3, 8, bias=False)),
        (conv(8, 16, 1), conv(16, 8, 1)),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8, eps=1e-3)),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(4)),
    ],
    ids=str,
)
def test_no_difference_is_overlooked(first, second):
    def before(layer):
        return [conv(3, layer.in_channels)] if isinstance(layer, nn.Conv2d) else [conv(3, 8)]

    record = compare(nn.Sequential(*before(first), first), nn.Sequential(*before(second), second))
    assert not record.same_layers
    assert (first, second) != (None, None)
    assert any(change.first and change.second for change in only(record).changes)


def test_the_order_of_layers_counts():
    first = nn.Sequential(conv(3, 3), nn.BatchNorm2d(3), nn.ReLU())
    second = nn.Sequential(conv(3, 3), nn.ReLU(), nn.BatchNorm2d(3))
    assert not compare(first, second).same_layers


def test_maps_of_another_size_are_a_difference():
    network = Staged(nn.Sequential(*block(3, 8)))
    record = difference(trace(network, (3, 16, 16)), trace(network, (3, 20, 20)))
    assert not record.same_layers
    assert (only(record).same, only(record).resized, only(record).changes) == (3, 3, ())


def test_parts_are_in_the_order_of_the_data_and_may_be_in_one_only():
    first = Staged(conv(8, 8), conv(8, 8), stem=conv(3, 8), head=nn.Flatten())
    second = Staged(conv(8, 8), conv(8, 8), conv(8, 4), stem=conv(3, 8), head=nn.Flatten())
    record = compare(first, second)
    assert [part.part for part in record.parts] == ["stem", "stage 1", "stage 2", "stage 3", "head"]
    third = record.parts[3]
    assert third.first is None
    assert (third.second.layers, third.second.output_shape) == (1, (4, 16, 16))
    assert record == codec.from_text(ModelDiff, codec.to_text(record), where="x")


def test_a_stage_gives_what_its_branches_give_together():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(3, 4, 1)

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x)], dim=1)

    (part,) = compare(Staged(Branches()), Staged(Branches())).parts
    assert part.first.output_shape == (12, 16, 16)
    assert part.first.receptive_field == 3, "that of the branch that sees most"


def test_deeper_and_wider_variants():
    """vgg16 has one or two convolutions more in each stage than vgg11, and nothing else."""
    with torch.device("meta"):
        record = difference(*(trace(create_model(name), (3, 224, 224)) for name in ("vgg11", "vgg16")))
    changes = {part.part: told(part) for part in record.parts}
    added = [(None, ("Conv2d", "3x3 padding 1")), (None, ("ReLU", ""))]
    assert changes == {f"stage {i}": added for i in range(1, 6)} | {"head": []}
    assert (
        sum(change.second.params for part in record.parts for change in part.changes)
        == record.second.params - record.first.params
    )
    assert sum(change.second.macs for part in record.parts for change in part.changes) == record.second.macs - record.first.macs


def test_an_unrelated_network_is_all_differences():
    with torch.device("meta"):
        record = difference(*(trace(create_model(name), (3, 224, 224)) for name in ("vgg11", "resnet50")))
    layers = [sum(part.same for part in record.parts)]
    for side in ("first", "second"):
        layers.append(sum(getattr(change, side) is not None for part in record.parts for change in part.changes))
    counted = [sum(layer.operation != "Identity" for layer in each.layers) for each in (record.first, record.second)]
    assert [layers[0] + layers[1], layers[0] + layers[2]] == counted, "every layer is the same or listed, once"
