import pytest
import torch
from torch import nn

from convatlas.errors import UserError
from convatlas.inspection.trace import trace


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
