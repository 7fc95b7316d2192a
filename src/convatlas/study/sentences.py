"""What a planned comparison found, in a sentence for readers. Differences are in points of accuracy: hundredths."""

from convatlas.records.findings import Effect
from convatlas.records.study import Interval

SIGNIFICANT = 0.05
"""An adjusted p-value below this makes a verdict."""


def in_words(effect: Effect, *, comparisons: int, margin: float, unpaired: bool, same_answers: bool = False) -> str:
    """The finding in words. `comparisons` is how many were planned; `unpaired`: a seed of one variant is not the other's;
    `same_answers`: both were right on the same images in every seed.

    `margin` is that of equivalence, as a share (0: not asked). An effect without a verdict begins with "Undecided".
    """
    if effect.difference is None:
        return f"Undecided: {effect.first} and {effect.second} have no finished seed in common."
    if effect.p is None:
        said = _untested(effect, effect.difference, same_answers)
    elif len(effect.seeds) == 1:
        said = _one_seed(effect, effect.difference, comparisons) + (" Equivalence takes at least two." if margin else "")
    else:
        said = _several_seeds(effect, effect.difference, comparisons, margin)
    if unpaired:
        said += f" Only what both have is compared: seed{_s(effect.seeds)} {', '.join(map(str, effect.seeds))}."
    return said


def unplanned_in_words(effect: Effect) -> str:
    """The difference of two variants whose comparison was not planned, in words."""
    if effect.difference is None:
        return f"Not planned: {effect.first} and {effect.second} have no finished seed in common."
    found = effect.difference
    of = f"{len(effect.seeds)} paired seeds" if len(effect.seeds) > 1 else f"seed {effect.seeds[0]}"
    interval = f"{_range(found)}; {of}" if found.low < found.high else f"{of}; no interval"
    said = f"{effect.first} is {_gap(found)} {effect.second} ({interval})"
    return f"Not planned, so neither tested nor decided: {said}. Of several such looks the largest difference misleads."


def _untested(effect: Effect, difference: Interval, same_answers: bool) -> str:
    """There are numbers, and nothing that says how far they can be trusted."""
    where = f"in each of {len(effect.seeds)} paired seeds"
    if len(effect.seeds) == 1:
        where = f"in seed {effect.seeds[0]}"
        reason = "One seed gives no interval, and what was answered for each test image is not known."
    elif same_answers:
        reason = "They were right on the same images in every seed: perhaps what distinguishes them does not reach the network."
    else:
        reason = "Differences without spread give neither an interval nor a test."
    return f"Undecided: {effect.first} is {_gap(difference)} {effect.second} {where}. {reason}"


def _several_seeds(effect: Effect, difference: Interval, comparisons: int, margin: float) -> str:
    tested = f"{_range(difference)}; {len(effect.seeds)} paired seeds; {_p(effect.p_adjusted)}{_after(comparisons)}"
    said = f"{effect.first} is {_gap(difference)} {effect.second}"
    if effect.verdict == "undecided":
        return f"Undecided: {said} in these runs ({tested}).{_alone(effect, comparisons)}"
    if effect.verdict == "equivalent":
        within = f"Equivalent within {_points(margin)} points ({_p(effect.equivalence_p)}{_after(comparisons)})"
        judged = effect.equivalence_interval
        narrower = f"90 % interval, by which that is judged, {_range(judged)}; 95 % " if judged else ""
        return f"{within}: {said} in these runs ({narrower}{tested})."
    smaller = effect.equivalence_p is not None and effect.equivalence_p < SIGNIFICANT
    if not smaller:
        return f"{said} ({tested})."
    shown = f"{_p(effect.equivalence_p)}{_after(comparisons)}"
    return f"{said} ({tested}). The difference is smaller than the margin of {_points(margin)} points ({shown})."


def _one_seed(effect: Effect, difference: Interval, comparisons: int) -> str:
    """The networks are the subject here, and not the variants: another seed makes other networks."""
    tested = f"McNemar's exact {_p(effect.p_adjusted)}{_after(comparisons)}"
    if difference.low < difference.high:
        tested = f"{_range(difference)} by bootstrap over the test images; {tested}"
    both = f"f the two networks trained with seed {effect.seeds[0]}"
    said = f"{both}, that of {effect.first} is {_gap(difference)} that of {effect.second} ({tested})."
    covers = f"This covers the sampling of {difference.n:,} test images and not what another seed would do."
    if effect.verdict == "undecided":
        return f"Undecided: o{said}{_alone(effect, comparisons)} {covers}"
    return f"O{said} {covers}"


def _alone(effect: Effect, comparisons: int) -> str:
    """Why an interval that leaves out zero made no verdict."""
    if effect.p is None or effect.p >= SIGNIFICANT:
        return ""
    return f" Alone it would count as a difference ({_p(effect.p)}); as one of {comparisons} comparisons it does not."


def _gap(difference: Interval) -> str:
    size = _number(abs(difference.mean), difference)
    if not float(size):
        return "level with"
    return f"{size} points {'above' if difference.mean > 0 else 'below'}"


def _range(difference: Interval) -> str:
    """The interval of what `_gap` says: of how far the first is below, where that is what the whole interval says.

    An interval on both sides of zero is that of the difference, with its signs.
    """
    if difference.high < 0:
        return " to ".join(_number(-end, difference) for end in (difference.high, difference.low))
    ends = " to ".join(_number(end, difference) for end in (difference.low, difference.high))
    return ends if difference.low > 0 else f"difference {ends}"


def _number(share: float, difference: Interval) -> str:
    """Points with one decimal, or two where the interval is narrower than half a point."""
    decimals = 1 if difference.high - difference.low >= 0.005 else 2
    return f"{round(100 * share, decimals) + 0.0:.{decimals}f}"  # + 0.0 makes 0.0 of -0.0


def _points(margin: float) -> str:
    return f"{100 * margin:.4g}"


def _p(p: float | None) -> str:
    """A p-value with two digits that never rounds to the other side of what is significant."""
    assert p is not None, "there was a test"
    if p < 0.001:
        return "p < 0.001"
    text = f"{p:.2g}"
    return "p just below 0.05" if p < SIGNIFICANT <= float(text) else f"p = {text}"


def _after(comparisons: int) -> str:
    return f" after Holm over {comparisons} comparisons" if comparisons > 1 else ""


def _s(seeds: tuple[int, ...]) -> str:
    return "" if len(seeds) == 1 else "s"
