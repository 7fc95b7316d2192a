"""The comparisons that a study was planned to make: differences with intervals, tests, and a verdict on each.

Where two or more seeds pair, the differences of accuracy seed by seed are the sample: Student's t. It speaks of training again
with other seeds and testing on these images. Where one seed pairs, the test images are the sample: it speaks of these two trained
networks and of other images like these, and never of the architectures. Its sentence says so.

The p-values are adjusted after Holm (1979) over all comparisons of the plan, so that of 100 studies of variants that are the same
5 at most call any of them better or worse; a comparison that has no p-value yet counts as one with p = 1. Equivalence is two
one-sided tests (Schuirmann 1987), adjusted after Holm on their own: of 100 studies whose variants all differ by the margin or
more, 5 at most call any pair equivalent. A study with pairs of both kinds can err in both ways.

Differences without any spread (over three seeds: 0.01, 0.01, 0.01) have no test: Student's t would divide by zero and claim
p = 0. They are evidence of a small test set, or of a factor that never reached the network, and the verdict is "undecided".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import ttost_paired

from convatlas.records.findings import Effect
from convatlas.records.plan import PlannedComparison
from convatlas.records.study import Interval
from convatlas.study.sentences import SIGNIFICANT, in_words, unplanned_in_words
from convatlas.study.statistics import LEVEL, differ, mean_interval

RESAMPLES = 10_000


@dataclass(frozen=True)
class Outcome:
    """What came of one variant: its test accuracy in [0, 1] by seed, and by seed whether each test image was answered rightly.

    `right` has the test images in the same order for all variants; a seed may be missing there.
    """

    accuracies: Mapping[int, float]
    right: Mapping[int, Sequence[bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Test:
    """One comparison by itself. `p` is None where there is nothing to test with."""

    seeds: tuple[int, ...]
    difference: Interval | None = None
    p: float | None = None
    effect_size: float | None = None
    equivalence_p: float | None = None
    equivalence_interval: Interval | None = None
    same_answers: bool = False
    """Whether both are known to have been right on the same test images in every seed that pairs."""


def effects(
    outcomes: Mapping[str, Outcome], comparisons: Sequence[PlannedComparison], *, equivalence: float
) -> tuple[Effect, ...]:
    """The effect of each planned comparison, in their order. `outcomes` has every variant that they name, finished or not.

    `equivalence` is the margin, a share in [0, 1], below which two variants count as equal; 0 asks for no such verdict. A verdict
    is "better" or "worse" where the adjusted p is below 0.05, even if the difference is shown to be below the margin too (the
    sentence says it); else "equivalent" where the adjusted p of equivalence is below 0.05; else "undecided".
    """
    tests = [_test(outcomes[one.first], outcomes[one.second], equivalence) for one in comparisons]
    adjusted = holm([test.p for test in tests])
    equal = holm([test.equivalence_p for test in tests])
    found = []
    for planned, test, p_adjusted, equivalence_p in zip(comparisons, tests, adjusted, equal, strict=True):
        effect = Effect(
            first=planned.first,
            second=planned.second,
            seeds=test.seeds,
            difference=test.difference,
            p=test.p,
            p_adjusted=p_adjusted,
            effect_size=test.effect_size,
            equivalence_p=equivalence_p,
            verdict=_verdict(test.difference, p_adjusted, equivalence_p),
            sentence="",
            equivalence_interval=test.equivalence_interval,
        )
        unpaired = set(outcomes[planned.first].accuracies) != set(outcomes[planned.second].accuracies)
        words = in_words(
            effect, comparisons=len(comparisons), margin=equivalence, unpaired=unpaired, same_answers=test.same_answers
        )
        found.append(replace(effect, sentence=words))
    return tuple(found)


def described(first: str, second: str, outcomes: Mapping[str, Outcome]) -> Effect:
    """The difference of two variants whose comparison was not planned: with its interval, without a test and a verdict."""
    test = _test(outcomes[first], outcomes[second], 0.0)
    effect = Effect(first, second, test.seeds, test.difference, None, None, test.effect_size, None, "undecided", "")
    return replace(effect, sentence=unplanned_in_words(effect))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """The p-values after Holm (1979), over all of them; None counts as 1 and stays None.

    What statsmodels' multipletests gives, which collects all garbage of the process each time it is asked.
    """
    known = sorted((value, i) for i, value in enumerate(values) if value is not None)
    adjusted: list[float | None] = [None] * len(values)
    so_far = 0.0
    for rank, (value, i) in enumerate(known):
        so_far = max(so_far, min(1.0, (len(values) - rank) * value))
        adjusted[i] = so_far
    return adjusted


def paired_differences(first: Outcome, second: Outcome) -> dict[int, float]:
    """Accuracy of `first` minus that of `second` in every seed that both have, by seed, from the smallest."""
    seeds = sorted(set(first.accuracies) & set(second.accuracies))
    return {seed: first.accuracies[seed] - second.accuracies[seed] for seed in seeds}


def _verdict(difference: Interval | None, p_adjusted: float | None, equivalence_p: float | None) -> str:
    if difference is not None and p_adjusted is not None and p_adjusted < SIGNIFICANT:
        return "better" if difference.mean > 0 else "worse"
    return "equivalent" if equivalence_p is not None and equivalence_p < SIGNIFICANT else "undecided"


def _test(first: Outcome, second: Outcome, equivalence: float) -> _Test:
    """The comparison of two variants by whatever they have in common."""
    differences = paired_differences(first, second)
    seeds = tuple(differences)
    if not seeds:
        return _Test(seeds)
    if len(seeds) == 1 and seeds[0] in first.right and seeds[0] in second.right:
        return _over_images(seeds[0], first.right[seeds[0]], second.right[seeds[0]])
    if len(seeds) == 1 or not differ(list(differences.values())):
        found = mean_interval(list(differences.values()), over="paired seed")
        return _Test(seeds, found, same_answers=_same_answers(first, second, seeds))
    return _over_seeds(first, second, differences, equivalence)


def _over_seeds(first: Outcome, second: Outcome, differences: dict[int, float], equivalence: float) -> _Test:
    """Student's t over the paired differences; Cohen's d_z is their mean over their standard deviation."""
    gaps = np.array(list(differences.values()))
    a, b = (np.array([outcome.accuracies[seed] for seed in differences]) for outcome in (first, second))
    found = stats.ttest_rel(a, b)
    low, high = found.confidence_interval(LEVEL)
    method = "Student's t over paired seeds"
    interval = Interval(float(gaps.mean()), max(float(low), -1.0), min(float(high), 1.0), len(gaps), method)
    effect_size = float(gaps.mean() / gaps.std(ddof=1))
    if equivalence <= 0:
        return _Test(tuple(differences), interval, float(found.pvalue), effect_size)
    low, high = found.confidence_interval(2 * LEVEL - 1)
    narrower = Interval(interval.mean, float(low), float(high), len(gaps), f"{method}, 90 %")
    equal = float(ttost_paired(a, b, -equivalence, equivalence)[0])
    return _Test(tuple(differences), interval, float(found.pvalue), effect_size, equal, narrower)


def _same_answers(first: Outcome, second: Outcome, seeds: Sequence[int]) -> bool:
    """Whether it is known that both were right on the same test images in each of the seeds."""
    known = all(seed in first.right and seed in second.right for seed in seeds)
    return known and all(list(first.right[seed]) == list(second.right[seed]) for seed in seeds)


def _over_images(seed: int, first: Sequence[bool], second: Sequence[bool]) -> _Test:
    """McNemar's exact test and a bootstrap interval over the test images of one pair of trained networks."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    assert a.shape == b.shape and a.size, "both answered the same test images"
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    interval = bootstrap_interval(only_first, only_second, n=a.size)
    p = float(mcnemar([[both, only_first], [only_second, neither]], exact=True).pvalue)
    return _Test((seed,), interval, p)


def bootstrap_interval(only_first: int, only_second: int, *, n: int) -> Interval:
    """The 95 % percentile bootstrap interval of the difference of two networks' accuracies on the same n images.

    `only_first` images were answered rightly by the first network alone, `only_second` by the second alone. To draw n images
    with replacement, each with its pair of answers, is to draw these two counts from a multinomial; so that is what is drawn,
    always with the same random numbers (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).
    """
    mean = (only_first - only_second) / n
    if not only_first and not only_second:
        return Interval(mean, mean, mean, n, "one seed, and both right on the same test images: no interval")
    shares = [only_first / n, only_second / n, (n - only_first - only_second) / n]
    drawn = np.random.default_rng(0).multinomial(n, shares, size=RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), n, "bootstrap over the test images of one seed")
