"""How often the verdict of a study errs: thousands of simulated studies, each judged by `convatlas study`'s own statistics.

    python benchmarks/type_one_error.py [--studies 2000] [--images 1000]

A simulated network answers each test image rightly with a chance of its own: the image's, which all networks of a study share,
plus its variant's effect, plus its seed's. Accuracies are the shares that came out right, so two networks differ by their seeds
and by the luck of their answers. Each line is a share of studies (or of intervals) and within what it must lie: the bounds that a
coin of the chance promised keeps in 999 of 1,000 trials, from 0 where the promise is "at most".
"""

import argparse
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from convatlas.records.findings import Effect
from convatlas.records.plan import PlannedComparison
from convatlas.study.effects import Outcome, effects
from convatlas.study.power import power_of
from convatlas.study.statistics import mean_interval

SPREAD = 0.005
"""Standard deviation of a seed's own accuracy, as a share."""
FEWEST = 1000
"""Test images of a study."""
SURE = 0.999
"""The chance with which a line lies within its bounds if the statistics are right."""


@dataclass(frozen=True)
class Line:
    """A share of `n` trials, and the least and the most that it may be."""

    what: str
    n: int
    share: float
    least: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether the share is within its bounds."""
        return self.least <= self.share <= self.most


def line(what: str, hits: Iterable[bool], *, chance: float, at_most: bool = False) -> Line:
    """The share of hits beside what trials of this `chance` allow."""
    found = list(hits)
    n = len(found)
    tail = (1 - SURE) / (1 if at_most else 2)
    least = 0.0 if at_most else float(stats.binom.ppf(tail, n, chance)) / n
    return Line(what, n, sum(found) / n, least, float(stats.binom.isf(tail, n, chance)) / n)


def answers(
    generator: np.random.Generator, chances: NDArray[np.float32], *, gains: tuple[float, ...], seeds: int
) -> NDArray[np.bool_]:
    """Which images each variant's seeds answer rightly: (variants, seeds, images). `gains` are the variants' effects."""
    own = generator.normal(0, SPREAD, (len(gains), seeds, 1)).astype(np.float32)
    effect = np.array(gains, dtype=np.float32) - np.float32(np.mean(gains))
    lifted = chances + effect[:, None, None] + own
    return generator.random((len(gains), seeds, len(chances)), dtype=np.float32) < lifted


def image_chances(generator: np.random.Generator, images: int) -> NDArray[np.float32]:
    """Easy and hard images, none so easy or so hard that an effect of some points would not reach it: 0.15 to 0.9."""
    return (0.15 + 0.75 * generator.beta(2, 0.6, images)).astype(np.float32)


def studies(count: int, *, gains: tuple[float, ...], seeds: int, images: int, margin: float = 0.0) -> list[tuple[Effect, ...]]:
    """So many studies of as many variants as there are `gains`, all pairs compared, each on test images of its own."""
    generator = np.random.default_rng(20_000 + seeds + images)
    pairs = [PlannedComparison(str(a), str(b)) for a, b in itertools.combinations(range(len(gains)), 2)]
    found = []
    for _ in range(count):
        right = answers(generator, image_chances(generator, images), gains=gains, seeds=seeds)
        found.append(effects(_outcomes(right), pairs, equivalence=margin))
    return found


def _outcomes(right: NDArray[np.bool_]) -> dict[str, Outcome]:
    """As a study keeps them; the answers only where one seed needs them."""
    kept = right.shape[1] == 1
    return {
        str(i): Outcome(dict(enumerate(map(float, variant.mean(axis=1)))), dict(enumerate(variant)) if kept else {})
        for i, variant in enumerate(right)
    }


def differs(study: tuple[Effect, ...]) -> bool:
    """Whether a study calls any of its variants better or worse."""
    return any(effect.verdict in ("better", "worse") for effect in study)


def covers(effect: Effect, truth: float) -> bool:
    """Whether the interval of the difference holds the true one; an effect without interval does not."""
    return effect.difference is not None and effect.difference.low <= truth <= effect.difference.high


def spread_of_differences(images: int) -> float:
    """The standard deviation of a paired difference: two seeds' own and two networks' luck."""
    chances = image_chances(np.random.default_rng(0), 1_000_000).astype(np.float64)
    return float(np.sqrt(2 * (SPREAD**2 + (chances * (1 - chances)).mean() / images)))


def false_differences(count: int, images: int) -> list[Line]:
    """Type-I error: variants that are the same, and yet called better or worse."""
    two = studies(count, gains=(0, 0), seeds=3, images=images)
    three = studies(count, gains=(0, 0, 0), seeds=3, images=images)
    one = studies(count, gains=(0, 0), seeds=1, images=images)
    partly = _one_seed_chance(images)
    return [
        line("2 equal variants, 3 seeds: called different", map(differs, two), chance=0.05),
        line("3 equal variants, 3 seeds, 3 comparisons: any called different", map(differs, three), chance=0.05, at_most=True),
        line("2 equal variants, 1 seed: networks called different", map(differs, one), chance=partly, at_most=True),
    ]


def _one_seed_chance(images: int) -> float:
    """McNemar's test holds 5 % for networks that are the same; two seeds are not, so what it finds is partly true."""
    expected = spread_of_differences(images) / np.sqrt(spread_of_differences(images) ** 2 - 2 * SPREAD**2)
    return float(2 * stats.norm.sf(stats.norm.isf(0.025) / expected))


def real_differences(count: int, images: int) -> list[Line]:
    """Coverage of the 95 % interval, and how often a true difference is found, beside what `study power` says."""
    spread, seeds = spread_of_differences(images), 5
    gain = 1.7 * spread
    found = [study[0] for study in studies(count, gains=(gain, 0), seeds=seeds, images=images)]
    power = power_of(seeds, spread=spread, difference=gain)
    return [
        line("95 % interval of a difference, 5 seeds: covers it", (covers(e, gain) for e in found), chance=0.95),
        line("the same difference: called better", (e.verdict == "better" for e in found), chance=power),
        line("the same difference: called worse", (e.verdict == "worse" for e in found), chance=0.025, at_most=True),
    ]


def equivalences(count: int, images: int) -> list[Line]:
    """Type-I error of "equivalent", where the variants differ by just the margin, and its power where they are the same."""
    spread, seeds = spread_of_differences(images), 5
    margin = 2.5 * spread
    apart = [study[0] for study in studies(count, gains=(margin, 0), seeds=seeds, images=images, margin=margin)]
    three = studies(count, gains=(2 * margin, margin, 0), seeds=seeds, images=images, margin=margin)
    same = [study[0] for study in studies(count, gains=(0, 0), seeds=seeds, images=images, margin=margin)]
    return [
        line("a difference of just the margin, 5 seeds: p of equivalence < 0.05", map(_equal, apart), chance=0.05),
        line("the same: called equivalent", (e.verdict == "equivalent" for e in apart), chance=0.05, at_most=True),
        line("3 variants a margin apart: any p of equivalence < 0.05", map(_any_equal, three), chance=0.05, at_most=True),
        line("no difference: called equivalent", (e.verdict == "equivalent" for e in same), chance=_equal_chance(seeds)),
    ]


def _equal(effect: Effect) -> bool:
    return effect.equivalence_p is not None and effect.equivalence_p < 0.05


def _any_equal(study: tuple[Effect, ...]) -> bool:
    return any(map(_equal, study))


def _equal_chance(seeds: int, trials: int = 1_000_000) -> float:
    """How often the 90 % interval of normal values without a difference lies within 2.5 spreads, and the 95 % one holds 0."""
    generator = np.random.default_rng(1)
    means = np.abs(generator.normal(0, 1 / np.sqrt(seeds), trials))
    errors = np.sqrt(generator.chisquare(seeds - 1, trials) / (seeds - 1) / seeds)
    inside = means + stats.t.isf(0.05, seeds - 1) * errors < 2.5
    return float((inside & (means < stats.t.isf(0.025, seeds - 1) * errors)).mean())


def one_network_each(count: int, images: int) -> list[Line]:
    """One seed: two networks that answer each image with the same chance, on other images each time."""
    generator = np.random.default_rng(7)
    pair = [PlannedComparison("0", "1")]
    found = []
    for _ in range(count):
        right = generator.random((2, 1, images), dtype=np.float32) < image_chances(generator, images)
        found.append(effects(_outcomes(right), pair, equivalence=0)[0])
    return [
        line("2 networks alike, 1 seed: called different", (e.verdict != "undecided" for e in found), chance=0.05, at_most=True),
        line("their bootstrap interval: covers 0", (covers(e, 0.0) for e in found), chance=0.95),
    ]


def means(count: int, images: int) -> list[Line]:
    """Coverage of a variant's own mean over three seeds."""
    generator = np.random.default_rng(11)
    held = []
    for _ in range(count):
        chances = image_chances(generator, images)
        accuracies = answers(generator, chances, gains=(0,), seeds=3)[0].mean(axis=1)
        interval = mean_interval([float(a) for a in accuracies], within=(0.0, 1.0))
        held.append(interval.low <= float(chances.mean()) <= interval.high)
    return [line("95 % interval of a mean, 3 seeds: covers it", held, chance=0.95)]


PARTS: tuple[Callable[[int, int], list[Line]], ...] = (
    false_differences,
    one_network_each,
    means,
    real_differences,
    equivalences,
)


def main() -> None:
    """Parse, simulate, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    if options.images < FEWEST:
        parser.error(f"with fewer than {FEWEST} images a difference that can be found is more than the easiest of them can gain")
    print("| what | of | share | must lie in | holds |\n|---|---|---|---|---|")
    for part in PARTS:
        for one in part(options.studies, options.images):
            bounds = f"{one.least:.4f} to {one.most:.4f}"
            print(f"| {one.what} | {one.n:,} | {one.share:.4f} | {bounds} | {'yes' if one.holds else 'NO'} |", flush=True)


if __name__ == "__main__":
    main()
