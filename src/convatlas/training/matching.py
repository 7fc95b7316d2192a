"""Equal budgets: the width at which a network has a given number of parameters or MACs.

The multiplier of all widths is searched in steps of 1/10,000 on the meta device. Channels are whole, so that cost rises in steps
with it: what is found is the nearest that whole channels allow.
"""

from collections.abc import Callable

import torch

from convatlas.errors import UserError
from convatlas.models.configuration import configured, model_name, parsed
from convatlas.models.families import FAMILIES, FAMILY_OF
from convatlas.models.registry import create_model
from convatlas.models.settings import LARGEST_WIDTH
from convatlas.training.prepare import costs

MEASURES = ("params", "macs")
STEPS = 10_000
"""Of the multiplier, to 1."""


def width_for(
    name: str, *, measure: str, target: float, tolerance: float, num_classes: int, in_chans: int, image_size: int
) -> tuple[str, float, int]:
    """The canonical name of `name` as wide as has `target` parameters or MACs (`measure`: "params" or "macs"), that width as a
    multiple of its own, and what it comes to.

    Parameters without those that only training uses, MACs for one image of `image_size` pixels. A network that fits as it is
    keeps its name. Raises UserError if the nearest is off by more than the share `tolerance`, and for a network without widths
    that does not fit as it is.
    """
    if measure not in MEASURES or not target > 0:
        raise UserError(f"{target} {measure} cannot be met", fix=f"Give a number above 0 of {' or '.join(MEASURES)}.")
    plain = configured(name, {"width": None}) if "width" in parsed(name)[1] else model_name(name)

    def named(step: int) -> str:
        return plain if step == STEPS else configured(plain, {"width": step / STEPS})

    def reached(step: int) -> int:
        return _measured(named(step), measure, num_classes=num_classes, in_chans=in_chans, image_size=image_size)

    seen = {STEPS: reached(STEPS)}
    why = _fixed(plain)
    if why is None and seen[STEPS] != target:
        _search(reached, target, seen)
    best = min(seen, key=lambda step: (abs(seen[step] - target), abs(step - STEPS)))
    if abs(seen[best] - target) > tolerance * target:
        said = f"{named(best)} has {seen[best]:,} {'parameters' if measure == 'params' else 'MACs'}"
        raise _too_far(said if why else f"{said}, and no width is nearer", seen[best] / target - 1, target, tolerance, why)
    return named(best), best / STEPS, seen[best]


def _too_far(said: str, off: float, target: float, tolerance: float, why: str | None) -> UserError:
    what = f"{said}: {abs(off):.1%} off {target:,.0f}, and {tolerance:.1%} are admitted"
    return UserError(what, fix=why or "Admit more, or hold something else equal.")


def _fixed(name: str) -> str | None:
    """Why the network has one width only; None if it has others."""
    family = FAMILY_OF.get(parsed(name)[0])
    if family is None:
        return "A network from a file has the widths that the file gives it: leave it out, or let the file make it larger."
    return None if FAMILIES[family].widened is not None else "Its family keeps its published size: leave it out."


def _search(reached: Callable[[int], int], target: float, seen: dict[int, int]) -> None:
    """Bisect the steps for the target; all that was tried is kept in `seen`."""
    low, high = (0, STEPS) if seen[STEPS] > target else (STEPS, STEPS)
    while seen[high] < target and high < LARGEST_WIDTH * STEPS:
        low, high = high, min(2 * high, int(LARGEST_WIDTH * STEPS))
        seen[high] = reached(high)
    while high - low > 1:
        middle = (low + high) // 2
        seen[middle] = reached(middle)
        if seen[middle] == target:
            return
        low, high = (middle, high) if seen[middle] < target else (low, middle)


def _measured(name: str, measure: str, *, num_classes: int, in_chans: int, image_size: int) -> int:
    if measure == "macs" or parsed(name)[0] not in FAMILY_OF:
        found = costs(name, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        return found[MEASURES.index(measure)]
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
    auxiliary = sum(each.numel() for each in model.auxiliary_parameters())
    return sum(each.numel() for each in model.parameters()) - auxiliary
