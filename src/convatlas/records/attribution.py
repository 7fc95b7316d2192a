"""Which pixels speak for a class, drawn as a map over the picture, and whether the map depends on what the network has learnt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RandomisationCheck:
    """How like a map is to the maps for the same class after the weights were replaced by random ones, one for each seed.

    `correlation` is the mean of Spearman's rank correlations (1: the same map, 0: nothing in common), `lowest` and `highest`
    their range, `top` the mean after the last layer alone was replaced. `ssim` is the mean structural similarity. A map fails
    whose `correlation` reaches `threshold`, or whose `top` reaches `top_threshold`.
    """

    seeds: tuple[int, ...]
    correlation: float
    lowest: float
    highest: float
    top: float
    ssim: float
    threshold: float
    top_threshold: float


@dataclass(frozen=True)
class Attribution:
    """One map of one picture by one method for the class with index `target`.

    `layer` is the layer whose maps are weighed, None for methods that look at pixels. `settings` says what a reader needs to make
    the map again. `picture` is a PNG as a data URL: the map over the picture, and the outcome of the check below it. `gap` is
    the share of the logit's change that the map leaves unexplained, for methods that promise to explain it all. `passed` is None
    where there is nothing to check; `note` says in one sentence what came out.
    """

    image: str
    method: str
    layer: str | None
    target: int
    settings: str
    picture: str
    gap: float | None
    check: RandomisationCheck | None
    passed: bool | None
    note: str
