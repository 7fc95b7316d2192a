"""Muon by hand, and the groups that it is given."""

import pytest
import torch
from torch import nn

from convatlas.models.registry import create_model
from convatlas.training.muon import Muon, orthogonal
from convatlas.training.optim import make_optimizer
from convatlas.training.views import TEST_AVERAGES

from .makers import small_recipe


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32)])
def test_an_update_becomes_nearly_orthogonal(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.2 < values.min() <= values.max() < 1.35, "Newton and Schulz's polynomial leaves them about 1"
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    aligned = (orthogonal(matrix) * (u @ v)).sum() / (orthogonal(matrix).norm() * (u @ v).norm())
    assert aligned > 0.95, "and the directions as they are"
    assert torch.allclose(orthogonal(1e-3 * matrix), orthogonal(matrix), atol=0.02), "whatever the gradient's size"


def test_filters_keep_their_norm_and_others_follow_nesterov():
    filters = nn.Parameter(torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    bias = nn.Parameter(torch.ones(3))
    groups = [{"params": [filters], "filters": True}, {"params": [bias], "weight_decay": 0.5}]
    optimizer = Muon(groups, lr=0.1, momentum=0.6)
    for step in range(2):
        filters.grad = torch.randn(filters.shape, generator=torch.Generator().manual_seed(step))
        bias.grad = torch.full((3,), 2.0)
        optimizer.step()
    # Worked by hand: g = 2 + 0.5 * 1, v = g, move by g + 0.85 v; then again from there.
    first = 2.5
    value = 1 - 0.1 * (first + 0.85 * first)
    second = 2 + 0.5 * value
    velocity = 0.85 * first + second
    assert torch.allclose(bias, torch.full((3,), value - 0.1 * (second + 0.85 * velocity)))
    # Its norm is set to sqrt(8) before each move, and a move is about 0.1 times an orthogonal matrix of norm sqrt(8).
    assert filters.norm().item() == pytest.approx(8**0.5, rel=0.15)


def test_muon_takes_filters_and_nothing_else():
    model = create_model("efficientnet.pocket")
    optimizer = make_optimizer(model, small_recipe(optimizer="muon", bias_lr=3.0, classifier_lr=7.0, weight_decay=0.1))
    by_filters = {group["filters"]: group for group in optimizer.param_groups}
    assert {p.ndim for p in by_filters[True]["params"]} == {4}
    assert all(p.shape[1] > 1 for p in by_filters[True]["params"]), "a depthwise filter is no matrix"
    factors = {group["lr_factor"]: group for group in optimizer.param_groups}
    assert set(factors) == {1.0, 3.0, 7.0}
    assert [id(p) for p in factors[7.0]["params"]] == [id(model.head.classifier.weight)]
    assert factors[3.0]["weight_decay"] == 0.0 and {p.ndim for p in factors[3.0]["params"]} == {1}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", 1.0),  # the left upper pixel alone
        ("mirror", (1 + 4) / 2),
        # Shifted, a 2x2 image's corner becomes its opposite one's reflection: see below.
        ("mirror+shift", None),
        ("mirror+3x3", None),
    ],
)
def test_answers_are_averaged_over_views(name, expected):
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4)

    def ask(images):
        return images[:, 0, 0, 0][:, None]

    seen = TEST_AVERAGES[name](ask, x).item()
    if name == "mirror+3x3":
        # Each place's first row is the reflected 1, 0 or 1, and so its first column; mirrored, the first is the reflected 2, 3, 2.
        corners = [4 * row + (column + mirrored) / 2 + 1 for row in (1, 0, 1) for column, mirrored in ((1, 2), (0, 3), (1, 2))]
        expected = sum(corners) / 9
    elif name == "mirror+shift":
        # First view: row and column -1, reflected: the pixel at (1, 1) is 6, mirrored the one at (1, 2) is 7. Last view: the
        # pixel at (1, 1) again, 6; its mirror's first is the reflection of the last column, at (1, 2), 7.
        expected = 0.5 * (1 + 4) / 2 + 0.25 * (6 + 7) / 2 + 0.25 * (6 + 7) / 2
    assert seen == pytest.approx(expected)
