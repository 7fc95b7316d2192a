"""LeNet-5 as published: its counts, its connections, its output layer. The reference values are the paper's, or by hand."""

import pytest
import torch
from torch.nn.functional import conv2d, cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from convatlas.inspection.trace import trace
from convatlas.layers.network import Request
from convatlas.models.lenet import (
    Coefficient,
    LeNet5,
    LeNet5Paper,
    RadialBasis,
    SparseConvolution,
    Squash,
    Subsampling,
    class_codes,
)

TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""
"""As the paper prints it: a row for each map of S2, a column for each map of C3."""

LAYERS = {
    "stages.0.conv": 156,
    "stages.0.subsampling": 12,
    "stages.1.conv": 1_516,
    "stages.1.subsampling": 32,
    "head.c5": 48_120,
    "head.f6": 10_164,
    "head.classifier": 0,
}
"""The paper's trainable parameters (section II.B)."""


def paper(num_classes=10, in_chans=1, image_size=32):
    torch.manual_seed(0)
    return LeNet5Paper(Request(num_classes, in_chans, image_size)).eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("layer", LAYERS)
def test_parameters_of_each_layer_are_the_papers(layer):
    assert count(paper().get_submodule(layer)) == LAYERS[layer]


def test_parameters_in_all_are_60_000():
    assert count(paper()) == sum(LAYERS.values()) == 60_000


def test_the_taught_form_has_61_706_parameters_and_62_006_with_colour():
    assert [count(LeNet5(Request(10, channels, 32))) for channels in (1, 3)] == [61_706, 62_006]


def test_maps_are_those_of_figure_2():
    record = trace(paper(), (1, 32, 32))
    shapes = {layer.name: layer.output_shape for layer in record.layers}
    assert shapes["stages.0.conv"] == (6, 28, 28)
    assert record.stage_shapes == ((6, 14, 14), (16, 5, 5))
    assert shapes["head.c5"] == (120, 1, 1)
    assert shapes["head.f6"] == (84,)
    assert shapes["head.classifier"] == (10,)


def test_macs_count_only_what_is_connected():
    macs = {"C1": 28 * 28 * 150, "C3": 10 * 10 * 1_500, "C5": 48_000, "F6": 84 * 120}
    with torch.device("meta"):
        model = paper()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 1, 32, 32, device="meta"))
    assert trace(paper(), (1, 32, 32)).macs == sum(macs.values()) == 325_680
    assert counter.get_total_flops() == 2 * 325_680


@pytest.mark.parametrize("source", range(6))
def test_c3_sees_the_maps_of_table_i(source):
    c3, x = paper().stages[1].conv, torch.randn(1, 6, 14, 14)
    other = x.clone()
    other[:, source] += 1
    with torch.no_grad():
        changed = (c3(x) != c3(other)).flatten(2).any(2)[0]
    assert "".join("X" if each else "." for each in changed) == TABLE_I.split()[source]


def test_c3_is_a_dense_convolution_with_the_missing_weights_at_zero():
    torch.manual_seed(0)
    table = ((0, 2), (1, 2), (0, 1, 2), (2,))
    sparse, x = SparseConvolution(table).double(), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    weight = torch.zeros(4, 3, 5, 5, dtype=torch.float64)
    held = [row for conv in sparse.convs for row in conv.weight.detach()]
    for out, sources in enumerate(table):
        weight[out, list(sources)] = held[out]
    bias = torch.cat([conv.bias for conv in sparse.convs])
    torch.testing.assert_close(sparse(x), conv2d(x, weight, bias))


def test_subsampling_adds_the_four_inputs_and_squashes():
    torch.manual_seed(0)
    layer, x = Subsampling(3).double(), torch.randn(2, 3, 6, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.coefficient.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        layer.coefficient.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
        y = layer(x)
    for c, (weight, bias) in enumerate([(0.5, 0.1), (-1.0, 0.2), (2.0, -0.3)]):
        added = x[1, c, 2, 2] + x[1, c, 2, 3] + x[1, c, 3, 2] + x[1, c, 3, 3]
        assert y[1, c, 1, 1].item() == pytest.approx(1.7159 * torch.tanh(2 / 3 * (weight * added + bias)).item(), rel=1e-6)


def test_squashing_has_fixed_points_at_plus_and_minus_one():
    squash = Squash()
    assert squash(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([1.0, -1.0], abs=1e-4)
    assert squash(torch.tensor([100.0, -100.0])).tolist() == pytest.approx([1.7159, -1.7159])
    assert squash(torch.tensor(0.5)).item() > 0.5  # steeper than the identity between the fixed points


def test_no_unit_up_to_f6_is_without_squashing():
    squashed = [name for name, module in paper().named_modules() if isinstance(module, Squash)]
    assert squashed == [
        *("stages.0.squash", "stages.0.subsampling.squash", "stages.1.squash", "stages.1.subsampling.squash"),
        *("head.squash5", "head.squash6"),
    ]


def test_logits_are_minus_the_squared_distances():
    codes = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    logits = RadialBasis(codes)(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
    assert logits.tolist() == [[0.0, -4.0, -4.0], [-9.25, -11.25, -1.25]]


def test_cross_entropy_is_the_papers_criterion_without_its_constant():
    model, x, labels = paper().double(), torch.randn(5, 1, 32, 32, dtype=torch.float64), torch.tensor([3, 0, 9, 1, 1])
    distances = ((model.head[:-1](model.stages(x)).unsqueeze(1) - model.head.classifier.weight) ** 2).sum(2)
    equation_9 = [y[label] + torch.log(torch.exp(-y).sum()) for y, label in zip(distances, labels, strict=True)]
    torch.testing.assert_close(cross_entropy(model(x), labels), torch.stack(equation_9).mean())


def test_codes_of_ten_classes_are_pictures_of_the_digits():
    codes = class_codes(10)
    assert codes.shape == (10, 7 * 12)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    zero, one, seven = (codes[digit].view(12, 7) > 0 for digit in (0, 1, 7))
    assert torch.equal(zero, zero.flip(0)) and torch.equal(zero, zero.flip(1)) and not zero[4:8, 2:5].any()
    assert one[:, 3].all() and one.sum() < 20
    assert seven[0].all() and (seven[1:].sum(1) == 1).all()


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_codes_of_two_classes_are_far_apart(num_classes):
    codes = class_codes(num_classes)
    differing = (codes.unsqueeze(1) != codes).sum(2)
    assert differing[~torch.eye(num_classes, dtype=torch.bool)].min() >= 13


def test_random_codes_are_always_the_same_and_leave_torchs_random_state_alone():
    before = torch.get_rng_state()
    few, many = class_codes(7), class_codes(100)
    assert torch.equal(few, many[:7])
    assert abs(many.mean().item()) < 0.05
    assert torch.equal(before, torch.get_rng_state())


def test_codes_are_kept_with_the_weights_and_never_trained():
    model = paper().train()
    assert "head.classifier.weight" in model.state_dict()
    assert "head.classifier.weight" not in dict(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    cross_entropy(model(torch.randn(4, 1, 32, 32)), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    assert torch.equal(model.head.classifier.weight, class_codes(10))


def test_weights_begin_within_2_4_over_the_fan_in():
    fan_in = {
        **{"stages.0.conv": 25, "stages.0.subsampling.coefficient": 4, "stages.1.subsampling.coefficient": 4},
        **{"stages.1.conv.convs.0": 75, "stages.1.conv.convs.1": 100, "stages.1.conv.convs.2": 150},
        **{"head.c5": 400, "head.f6": 120},
    }
    model = paper()
    drawn = {name for name, module in model.named_modules() if count(module) and not list(module.children())}
    assert drawn == set(fan_in)
    for name, inputs in fan_in.items():
        largest = model.get_submodule(name).weight.abs().max().item() * inputs
        assert 1.5 < largest <= 2.4


def test_a_fresh_coefficient_adds():
    assert torch.equal(Coefficient(2, inputs=4)(torch.full((1, 2, 1, 1), 0.25)), torch.ones(1, 2, 1, 1))


@pytest.mark.parametrize("image_size", [28, 32, 33, 96])
def test_image_sizes_reach_c5(image_size):
    model = paper(in_chans=3, image_size=image_size)
    with torch.no_grad():
        assert model(torch.randn(2, 3, image_size, image_size)).shape == (2, 10)


@pytest.mark.parametrize("network", [LeNet5, LeNet5Paper])
def test_drop_rates_reach_f6(network):
    assert network(Request(10, 1, 32)).head.dropout.p == 0.0
    assert network(Request(10, 1, 32, drop_rate=0.25)).head.dropout.p == 0.25


def test_28_pixels_are_framed_to_32():
    small, framed = paper(image_size=28), paper()
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(small(x), framed(torch.nn.functional.pad(x, (2, 2, 2, 2))))


def test_distances_keep_their_precision_under_autocast():
    model, x = paper(), torch.randn(8, 1, 32, 32)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.diff(dim=1), exact.diff(dim=1), atol=0.05, rtol=0)


def test_it_learns_by_heart():
    model, x = paper().train(), torch.randn(20, 1, 32, 32)
    labels = torch.arange(20) % 10
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    assert (model(x).argmax(1) == labels).all()
