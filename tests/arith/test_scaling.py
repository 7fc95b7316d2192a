"""Compound scaling: the rule, its rounding, and the published networks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convatlas.arith.scaling import PUBLISHED, compound_scale, cost_factor, scaled_depth, scaled_width
from convatlas.errors import UserError
from convatlas.models.registry import MODELS, create_model

B0_DEPTHS, B0_WIDTHS = (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)
PUBLISHED_STAGES = {  # blocks and channels of each stage, as torchvision and timm build them (held to theirs in tests/parity)
    0: (B0_DEPTHS, B0_WIDTHS),
    1: ((2, 3, 3, 4, 4, 5, 2), B0_WIDTHS),
    2: ((2, 3, 3, 4, 4, 5, 2), (16, 24, 48, 88, 120, 208, 352)),
    3: ((2, 3, 3, 5, 5, 6, 2), (24, 32, 48, 96, 136, 232, 384)),
    4: ((2, 4, 4, 6, 6, 8, 2), (24, 32, 56, 112, 160, 272, 448)),
    5: ((3, 5, 5, 7, 7, 9, 3), (24, 40, 64, 128, 176, 304, 512)),
    6: ((3, 6, 6, 8, 8, 11, 3), (32, 40, 72, 144, 200, 344, 576)),
    7: ((4, 7, 7, 10, 10, 13, 4), (32, 48, 80, 160, 224, 384, 640)),
}


@pytest.mark.parametrize("member", PUBLISHED)
def test_published_members_follow_from_b0(member):
    scale = PUBLISHED[member]
    depths = tuple(scaled_depth(depth, scale.depth) for depth in B0_DEPTHS)
    widths = tuple(scaled_width(width, scale.width) for width in B0_WIDTHS)
    assert (depths, widths) == PUBLISHED_STAGES[member]
    with torch.device("meta"):
        stages = create_model(f"efficientnet_b{member}").stages
    assert tuple(len(stage) for stage in stages) == depths
    assert tuple(stage[0].residual.project.norm.num_features for stage in stages) == widths
    assert MODELS[f"efficientnet_b{member}"].image_size == scale.resolution
    assert scale.resolution % 4 == 0


def test_the_rule_begins_at_b0_and_nearly_doubles_the_cost():
    assert compound_scale(0) == PUBLISHED[0]
    assert cost_factor(1) == pytest.approx(1.92, abs=0.005)
    assert cost_factor(3) == pytest.approx(cost_factor(1) ** 3)
    assert compound_scale(1, gamma=1.0).resolution == 224


@given(st.floats(0, 10), st.floats(1, 1.3), st.floats(1, 1.3), st.floats(1, 1.3))
def test_the_rule_grows_with_phi(phi, alpha, beta, gamma):
    less = compound_scale(phi, alpha=alpha, beta=beta, gamma=gamma)
    more = compound_scale(phi + 0.5, alpha=alpha, beta=beta, gamma=gamma)
    assert more.depth >= less.depth and more.width >= less.width and more.resolution >= less.resolution


@given(st.integers(1, 2048), st.floats(0.05, 8))
def test_widths_are_multiples_of_8_and_lose_at_most_a_tenth(width, factor):
    scaled = scaled_width(width, factor)
    assert scaled % 8 == 0
    assert scaled >= min(0.9 * width * factor, scaled)
    assert scaled >= 0.9 * width * factor
    assert scaled <= max(8, width * factor + 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"phi": -1}, "phi is -1"),
        ({"phi": float("nan")}, "phi is nan"),
        ({"phi": 1000}, "more than 64"),
        ({"phi": 1e308}, "more than 64"),
        ({"phi": 1, "alpha": 0.5}, "alpha is 0.5"),
        ({"phi": 1, "beta": float("inf")}, "beta is inf"),
        ({"phi": 1, "gamma": -2}, "gamma is -2"),
    ],
)
def test_bad_coefficients_are_named(options, said):
    with pytest.raises(UserError, match=said):
        compound_scale(**options)
