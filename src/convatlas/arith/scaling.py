"""EfficientNet's compound scaling: depth, width and resolution grow together by one coefficient.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946, section 3.3,
equations (2) and (3), and section 4.
"""

from dataclasses import dataclass
from math import ceil, isfinite

from convatlas.errors import UserError

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
"""Growth of depth, width and resolution for phi = 1, found by grid search (section 4, step 1)."""
BASE_RESOLUTION = 224
LARGEST = 64.0
"""Beyond this factor of depth, width or resolution no network of the kind can be built."""


@dataclass(frozen=True)
class Scale:
    """How often deeper and wider than EfficientNet-B0 a network is, and its image size in pixels a side."""

    depth: float
    width: float
    resolution: int


PUBLISHED: dict[int, Scale] = {
    0: Scale(1.0, 1.0, 224),
    1: Scale(1.1, 1.0, 240),
    2: Scale(1.2, 1.1, 260),
    3: Scale(1.4, 1.2, 300),
    4: Scale(1.8, 1.4, 380),
    5: Scale(2.2, 1.6, 456),
    6: Scale(2.6, 1.8, 528),
    7: Scale(3.1, 2.0, 600),
}
"""B0 to B7 as their authors built them (their code; the paper prints no coefficients). They follow the rule, but not to the
digit: B1 is nearly phi = 0.5, B2 nearly phi = 1, and B7 has the resolution of phi = 7 but the depth of little more than 6."""


def compound_scale(phi: float, *, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> Scale:
    """The rule: depth alpha^phi, width beta^phi, resolution 224 * gamma^phi, to a multiple of 4. Raises UserError.

    All published resolutions are multiples of 4; the paper does not say how they were rounded.
    """
    factors = []
    for name, base in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not (isfinite(base) and base >= 1):
            raise UserError(f"{name} is {base:g}", fix="Give a number of 1 or more: equation (3) of the paper.")
        factors.append(_power(name, base, phi))
    depth, width, resolution = factors
    return Scale(depth, width, max(4, 4 * int(BASE_RESOLUTION * resolution / 4 + 0.5)))


def cost_factor(phi: float, *, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> float:
    """By how much the rule makes the cost grow: (alpha * beta^2 * gamma^2)^phi (section 3.3)."""
    return float((alpha * beta**2 * gamma**2) ** phi)


def scaled_width(width: int, factor: float, *, divisor: int = 8) -> int:
    """Channels `factor` times as many, to the nearest multiple of `divisor`, but never less than nine tenths of it.

    The rule of MobileNet's code, which EfficientNet's took over.
    """
    wanted = width * factor
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def scaled_depth(depth: int, factor: float) -> int:
    """Blocks `factor` times as many, rounded up (EfficientNet's code)."""
    return ceil(depth * factor)


def _power(name: str, base: float, phi: float) -> float:
    if not (isfinite(phi) and phi >= 0):
        raise UserError(f"phi is {phi:g}", fix="Give a number of 0 or more.")
    try:
        factor = float(base**phi)
    except OverflowError:
        factor = float("inf")
    if factor > LARGEST:
        raise UserError(f"{name}^phi is {base:g}^{phi:g}, more than {LARGEST:g}", fix="Give a smaller phi.")
    return factor
