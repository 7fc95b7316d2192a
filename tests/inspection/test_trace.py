import pytest
import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.inspection.trace import trace
from convatlas.records import codec
from convatlas.records.model import TraceRecord


class Odd(nn.Module):
    """A network of nobody's library: a parameter of its own, a branch, no stages."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), groups=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.linear = nn.Linear(8 * 4 * 8, 5)

    def forward(self, x):
        x = self.conv(x)
        x = self.pool(x + self.scale * self.depthwise(x))
        return self.linear(x.flatten(1))


def test_a_strangers_network():
    record = trace(Odd(), (3, 15, 15))
    assert [layer.name for layer in record.layers] == ["conv", "depthwise", "pool", "linear"]
    conv, depthwise, pool, linear = record.layers
    assert conv.input_shape == (3, 15, 15)
    assert conv.output_shape == (8, 8, 15)
    assert conv.macs == 8 * 15 * 8 * 15 * 3
    assert conv.formula == "floor((15 - 3 + 2*1) / 2) + 1 = 8"
    assert depthwise.macs == 8 * 8 * 15 * 9
    assert pool.output_shape == (8, 4, 8)
    assert pool.formula == "floor((8 - 2 + 2*0) / 2) + 1 = 4", "rounding up made no difference"
    assert linear.macs == 256 * 5
    assert record.macs == sum(layer.macs for layer in record.layers)
    assert record.params == sum(p.numel() for p in Odd().parameters())
    assert record.stage_shapes == ()
    assert [layer.settings for layer in record.layers] == [
        "3x5 stride 2x1 padding 1x2",
        "3x3 padding 1 groups 8 no bias",
        "2x2 stride 2 rounded up",
        "",
    ]


def test_the_callers_model_is_not_touched():
    model = Odd().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    trace(model, (3, 15, 15))
    after_trace = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after_trace, torch.rand(1)), "no random numbers were drawn"
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(value.device.type == "cpu" and torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_image_too_small_is_met_with_the_formula():
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 4, 7))
    with pytest.raises(UserError, match=r"at layer 2 \(Conv2d\) the map is 4x4, .*floor\(\(4 - 7 \+ 2\*0\) / 1\) \+ 1 = -2"):
        trace(model, (3, 12, 12))


def test_other_errors_are_not_dressed_up():
    with pytest.raises(RuntimeError, match="Expected size|cannot be multiplied|must have same reduction"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), (3, 4, 4))


def test_receptive_fields_layer_by_layer():
    """Rows: 3, then 3 + 2 * 2 = 7 at jump 2, then 7 + 2 = 9 at jump 4. Columns: 5, 7 and 8 at jump 2. The larger counts."""
    record = trace(Odd(), (3, 15, 15))
    assert [layer.receptive_field for layer in record.layers] == [5, 7, 9, None]
    assert [layer.jump for layer in record.layers] == [2, 2, 4, None]
    assert not any(layer.unfollowed for layer in record.layers)
    assert (record.receptive_field, record.unfollowed) == (9, None), "of the last map with rows and columns"


def test_the_last_map_is_found_outside_of_modules():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow, self.head = nn.Conv2d(3, 2, 5, padding=2), nn.Conv2d(3, 2, 1), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.cat([self.wide(x), self.narrow(x)], dim=1).mean((2, 3)))

    record = trace(Joined(), (3, 9, 9))
    assert [layer.receptive_field for layer in record.layers] == [5, 1, None]
    assert record.receptive_field == 5


class Interrupted(nn.Module):
    """A network that rolls its map, which is not followed, in its second stage, and in its first, if asked to, too."""

    def __init__(self, everywhere):
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3)))
        self.head = nn.Linear(4, 2)
        self.everywhere = everywhere

    def forward(self, x):
        x = self.stages[0](x)
        x = self.stages[1](x.roll(1, 2) if self.everywhere else x)
        return self.head(x.roll(1, 2).mean((2, 3)))


def test_what_cannot_be_followed_leaves_the_rest_of_the_trace():
    record = trace(Interrupted(everywhere=True), (3, 9, 9))
    assert [layer.receptive_field for layer in record.layers] == [3, None, None]
    assert [layer.jump for layer in record.layers] == [1, None, None]
    assert [layer.unfollowed for layer in record.layers] == [None, *["the operation roll has no rule"] * 2]
    assert (record.receptive_field, record.unfollowed) == (None, "the operation roll has no rule")
    assert record.macs == 49 * 4 * 27 + 25 * 4 * 36 + 8
    assert record.stage_shapes == ((4, 7, 7), (4, 5, 5))


def test_the_last_stage_counts_not_what_follows():
    record = trace(Interrupted(everywhere=False), (3, 9, 9))
    assert (record.receptive_field, record.unfollowed) == (5, None)
    assert record.layers[-1].unfollowed


def test_a_trace_survives_as_json():
    for record in (trace(Odd(), (3, 15, 15)), trace(Interrupted(everywhere=True), (3, 9, 9))):
        assert codec.from_text(TraceRecord, codec.to_text(record), where="x") == record


@pytest.mark.parametrize(
    "around",
    [
        lambda: torch.device("meta"),
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.enable_grad,
    ],
    ids=["default device", "inference mode", "autocast", "gradients"],
)
def test_what_the_caller_has_switched_on_changes_nothing(around):
    class Branches(Odd):
        def forward(self, x):
            return super().forward(torch.cat([x[:, :1], x[:, 1:]], dim=1))

    model = Branches()
    expected = trace(model, (3, 15, 15))
    assert expected.receptive_field == 9
    with around():
        assert trace(model, (3, 15, 15)) == expected


def test_a_model_in_training_mode_is_traced_as_in_evaluation():
    """Statistics of the batch would make every unit see the whole image."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    assert trace(model, (3, 9, 9)).receptive_field == 3
    assert model.training
