"""What the standings of a tournament mean, in sentences: what to take, what could not be told apart, and what it cost."""

from collections.abc import Sequence

from convatlas.records.tournament import BASELINE, Standing

CHEAPER = 3.0
"""A strategy that costs a third or less is worth naming."""
NEAR = 0.02
"""In accuracy: one that was further behind is not recommended in the winner's stead, whatever the interval admits."""


def advice_of(standings: Sequence[Standing], winner: str, *, n_images: int) -> tuple[str, ...]:
    """Sentences, the most useful first."""
    best = next(each for each in standings if each.strategy == winner)
    others = [each for each in standings if each.strategy not in (winner, BASELINE)]
    said = [
        f"Take {winner}: {best.accuracy.mean:.1%} (95 % interval {best.accuracy.low:.1%} to {best.accuracy.high:.1%}) "
        f"over {best.trials} trainings on {n_images} images."
    ]
    equal = [each for each in others if each.difference is not None and each.difference.low <= 0 <= each.difference.high]
    if equal:
        names = ", ".join(each.strategy for each in equal)
        said.append(f"Not told apart from it in its round: {names}. More images, or more --seeds, would tell.")
    near = [each for each in equal if _gap(each) <= NEAR]
    cheap = [each for each in near if each.winner_seconds is not None and each.seconds * CHEAPER <= each.winner_seconds]
    if cheap:
        least = min(cheap, key=lambda each: each.seconds / (each.winner_seconds or 1.0))
        said.append(
            f"{least.strategy} trains in {least.seconds:.0f} s instead of {least.winner_seconds:.0f} s{_where(least, best)} and "
            f"was {100 * _gap(least):.1f} points behind: take it where time matters more than that."
        )
    said += _against_scratch(standings, best)
    if best.strategy == "probe" and _pretraining_helps(standings):
        said.append("That the frozen features suffice says that the images are much like those of the pretraining.")
    return tuple(said)


def _gap(each: Standing) -> float:
    assert each.difference is not None
    return each.difference.mean


def _where(each: Standing, best: Standing) -> str:
    """Of which round the seconds are, where that was not the winner's last: in each round trainings have another length."""
    return "" if each.rung == best.rung else f" (in round {each.rung})"


def _pretraining_helps(standings: Sequence[Standing]) -> bool:
    gap = next((each.difference for each in standings if each.strategy == BASELINE), None)
    return gap is not None and gap.low > 0


def _against_scratch(standings: Sequence[Standing], best: Standing) -> list[str]:
    scratch = next((each for each in standings if each.strategy == BASELINE), None)
    if scratch is None or best.strategy == BASELINE:
        return ["Training from random weights did best: the pretrained ones do not help here."] if scratch is best else []
    gap = scratch.difference
    if gap is None:
        return [f"From random weights {scratch.accuracy.mean:.1%} were reached."]
    known = gap.low > 0
    words = "above" if known else "not shown to be above"
    return [
        f"Pretraining is {words} random weights: {gap.mean * 100:+.1f} points (95 % interval {gap.low * 100:+.1f} to "
        f"{gap.high * 100:+.1f})."
    ]
