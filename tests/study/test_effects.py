import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from convatlas.records.plan import PlannedComparison
from convatlas.study.effects import Outcome, bootstrap_interval, effects, holm, paired_differences

# Student's sleep data, as in R's `sleep`: extra hours by two drugs. They are made shares here: (hours + 2) / 10.
SLEEP = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)


def outcome(values, *, shift=0.0, scale=1.0):
    return Outcome({seed: (value + shift) / scale for seed, value in enumerate(values)})


def compare(first, second, *, equivalence=0.0):
    pair = [PlannedComparison("a", "b")]
    return effects({"a": first, "b": second}, pair, equivalence=equivalence)[0]


def answered(n11, n10, n01, n00):
    """Two networks' answers with so many images right for both, for the first alone, for the second alone, for neither."""
    first = (True,) * (n11 + n10) + (False,) * (n01 + n00)
    second = (True,) * n11 + (False,) * n10 + (True,) * n01 + (False,) * n00
    return tuple(Outcome({0: sum(right) / len(right)}, {0: right}) for right in (first, second))


class TestSeveralSeeds:
    def test_rs_paired_t_test_of_the_sleep_data(self):
        # R's help page of t.test: "t = -4.0621, df = 9, p-value = 0.002833", "-2.4598858 -0.7001142", mean -1.58.
        found = compare(*(outcome(drug, shift=2, scale=10) for drug in SLEEP))
        assert found.p == pytest.approx(0.002833, abs=5e-7)
        assert found.p_adjusted == found.p
        assert found.difference is not None
        interval = (found.difference.mean, found.difference.low, found.difference.high)
        assert interval == pytest.approx((-0.158, -0.24598858, -0.07001142), abs=5e-9)
        assert found.effect_size == pytest.approx(-4.0621 / 10**0.5, abs=5e-5)
        assert (found.verdict, found.seeds) == ("worse", tuple(range(10)))

    def test_quertemonts_equivalence_test(self):
        # Quertemont 2011, "How to statistically show the absence of an effect", Psychologica Belgica 51(2), appendix p. 124:
        # mean 1, SD 1.58, margin 0.5, t = 0.71, df = 4, p = .74, 95 % interval -.96 to 2.96.
        morning, evening = (3, 4, 4, 5, 4), (1, 4, 1, 4, 5)
        found = compare(outcome(morning, scale=10), outcome(evening, scale=10), equivalence=0.05)
        assert found.equivalence_p == pytest.approx(0.74, abs=0.005)
        assert found.difference is not None
        assert (found.difference.low, found.difference.high) == pytest.approx((-0.096, 0.296), abs=5e-4)
        assert found.verdict == "undecided"

    def test_minitabs_equivalence_test(self):
        # Minitab's paired example in the validation of R's TOSTER (example 2.3): difference 0.33333, StDev 1.23443,
        # margin 0.8, T 3.5558 and -1.4642 with 14 degrees of freedom; the greater p is 0.083.
        first = (4, 2, 4, 3, 5, 4, 3, 4, 5, 4, 2, 3, 4, 5, 5)
        second = (3, 4, 2, 3, 5, 4, 3, 4, 5, 3, 4, 3, 2, 3, 4)
        found = compare(outcome(first, scale=10), outcome(second, scale=10), equivalence=0.08)
        assert found.equivalence_p == pytest.approx(0.083, abs=5e-4)
        assert found.equivalence_p == pytest.approx(stats.t.cdf(-1.4642, 14), abs=1e-5)
        assert found.effect_size == pytest.approx(0.33333 / 1.23443, abs=1e-5)

    @given(st.lists(st.integers(0, 1000), min_size=3, max_size=8), st.integers(0, 2**32 - 1))
    def test_scipys_paired_t_test(self, hits, seed):
        others = np.random.default_rng(seed).integers(0, 1001, len(hits))
        first, second = [h / 1000 for h in hits], [int(h) / 1000 for h in others]
        differences = [a - b for a, b in zip(first, second, strict=True)]
        found = compare(outcome(first), outcome(second))
        if max(differences) - min(differences) < 5e-4:
            assert (found.p, found.verdict) == (None, "undecided")
            return
        assert found.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=1e-9)
        low, high = stats.t.interval(0.95, len(hits) - 1, loc=np.mean(differences), scale=stats.sem(differences))
        assert found.difference is not None
        assert (found.difference.low, found.difference.high) == pytest.approx((max(low, -1), min(high, 1)), abs=1e-9)

    @pytest.mark.parametrize("margin", [0.001, 0.004, 0.01, 0.02])
    def test_equivalence_is_the_90_percent_interval_within_the_margin(self, margin):
        rng = np.random.default_rng(3)
        said = set()
        for _ in range(60):
            first, second = rng.normal(0.8, 0.005, 4), rng.normal(0.8, 0.005, 4)
            gaps = first - second
            low, high = stats.t.interval(0.9, 3, loc=gaps.mean(), scale=stats.sem(gaps))
            found = compare(outcome(map(float, first)), outcome(map(float, second)), equivalence=margin)
            assert found.equivalence_p is not None
            assert (found.equivalence_p < 0.05) == (-margin < low and high < margin)
            assert (found.equivalence_interval.low, found.equivalence_interval.high) == pytest.approx((low, high))
            if found.verdict == "equivalent":
                assert "90 % interval, by which that is judged, " in found.sentence
            said.add(found.verdict)
        assert ("equivalent" in said) == (margin >= 0.004)

    def test_equivalence_is_not_claimed_unless_asked(self):
        close = [0.8, 0.8001, 0.8002], [0.8001, 0.8, 0.8002]
        assert compare(*map(outcome, close)).equivalence_p is None
        assert compare(*map(outcome, close)).verdict == "undecided"
        assert compare(*map(outcome, close), equivalence=0.005).verdict == "equivalent"

    def test_the_order_turns_the_sign_and_nothing_else(self):
        first, second = outcome([0.9, 0.92, 0.91]), outcome([0.85, 0.86, 0.87])
        one, other = compare(first, second), compare(second, first)
        assert (one.verdict, other.verdict) == ("better", "worse")
        assert one.p == pytest.approx(other.p)
        assert one.difference is not None and other.difference is not None
        assert (one.difference.low, one.difference.high) == pytest.approx((-other.difference.high, -other.difference.low))
        numbers = [re.findall(r"\(.*\)", effect.sentence)[0] for effect in (one, other)]
        assert numbers[0] == numbers[1]

    def test_only_common_seeds_count_and_that_is_said(self):
        first, second = Outcome({0: 0.9, 1: 0.91, 2: 0.1}), Outcome({1: 0.9, 0: 0.88, 7: 0.99})
        found = compare(first, second)
        assert paired_differences(first, second) == pytest.approx({0: 0.02, 1: 0.01})
        assert found.seeds == (0, 1)
        assert found.difference is not None
        assert found.difference.mean == pytest.approx(0.015)
        assert found.sentence.endswith("Only what both have is compared: seeds 0, 1.")


class TestNoSpread:
    # 0.9 - 0.8 and 0.8 - 0.7 differ by 1e-16: a t test takes that for a spread and finds t = 1e15.
    @pytest.mark.parametrize("pairs", [((0.9, 0.8), (0.8, 0.7)), ((0.9, 0.8), (0.8, 0.7), (0.3, 0.2)), ((0.5, 0.5), (0.6, 0.6))])
    def test_equal_differences_are_no_evidence(self, pairs):
        first, second = (outcome(side) for side in zip(*pairs, strict=True))
        found = compare(first, second, equivalence=0.2)
        assert (found.p, found.p_adjusted, found.equivalence_p, found.effect_size) == (None, None, None, None)
        assert found.verdict == "undecided"
        assert found.difference is not None
        assert found.difference.low == found.difference.mean == found.difference.high
        assert found.difference.method == f"{len(pairs)} paired seeds without spread: no interval"
        assert found.sentence.startswith("Undecided: a is")

    @pytest.mark.parametrize(
        ("others", "reason"),
        [
            ((True, False), "They were right on the same images in every seed: perhaps what distinguishes them does not reach"),
            ((False, True), "Differences without spread give neither an interval nor a test."),
            (None, "Differences without spread give neither an interval nor a test."),
        ],
    )
    def test_equal_accuracies_point_at_the_factor_only_if_the_answers_are_equal(self, others, reason):
        accuracies = {0: 0.5, 1: 0.5}
        first = Outcome(accuracies, dict.fromkeys(accuracies, (True, False)))
        second = Outcome(accuracies, {} if others is None else dict.fromkeys(accuracies, others))
        found = compare(first, second)
        assert found.sentence.startswith(f"Undecided: a is level with b in each of 2 paired seeds. {reason}")


class TestOneSeed:
    def test_mcnemars_test_of_the_presidents_ratings(self):
        # Agresti 1990, p. 350 (and R's mcnemar.test): 794, 150, 86, 570 of 1,600. The exact p-value is twice the tail of a fair
        # coin, here summed as integers; the chi-squared one without correction is 3.099e-05 (Penn State's STAT 504).
        found = compare(*answered(794, 150, 86, 570))
        tail = sum(comb_row(236)[: 86 + 1])
        assert found.p == pytest.approx(2 * tail / 2**236, rel=1e-9)
        assert found.p == pytest.approx(3.099e-05, rel=0.25)
        assert found.difference is not None
        assert found.difference.mean == pytest.approx(64 / 1600)
        assert (found.difference.n, found.verdict, found.effect_size) == (1600, "better", None)
        # By the standard error of a difference of paired shares.
        half = 1.96 * math.sqrt((150 + 86) / 1600 - 0.04**2) / math.sqrt(1600)
        assert (found.difference.low, found.difference.high) == pytest.approx((0.04 - half, 0.04 + half), abs=0.001)

    def test_the_interval_is_scipys_bootstrap(self):
        n10, n01, n = 60, 35, 500
        values = np.repeat([1.0, -1.0, 0.0], [n10, n01, n - n10 - n01])
        rng = np.random.default_rng(5)
        theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=rng).confidence_interval
        ours = bootstrap_interval(n10, n01, n=n)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
        assert ours == bootstrap_interval(n10, n01, n=n)

    def test_it_speaks_of_networks_and_never_of_variants(self):
        for counts in ((700, 200, 50, 50), (700, 51, 49, 200)):
            found = compare(*answered(*counts), equivalence=0.5)
            assert "the two networks trained with seed 0" in found.sentence
            assert "not what another seed would do" in found.sentence
            assert "1,000 test images" in found.sentence
            assert "Equivalence takes at least two" in found.sentence
            assert found.equivalence_p is None
            assert found.verdict in ("better", "undecided")

    def test_networks_that_are_right_on_the_same_images(self):
        found = compare(*answered(10, 0, 0, 5))
        assert (found.p, found.verdict) == (1.0, "undecided")
        assert found.difference is not None
        assert found.difference.method.endswith("no interval")
        assert "bootstrap" not in found.sentence

    def test_without_answers_there_is_no_test(self):
        found = compare(Outcome({4: 0.9}), Outcome({4: 0.5}))
        assert (found.p, found.verdict) == (None, "undecided")
        assert found.sentence.startswith("Undecided: a is 40.00 points above b in seed 4. One seed gives no interval")

    def test_two_common_seeds_are_seeds_even_with_answers(self):
        first, second = answered(70, 20, 5, 5)
        two = [Outcome({**one.accuracies, 1: 0.5 + i / 100}, one.right) for i, one in enumerate((first, second))]
        found = compare(*two)
        assert found.difference is not None
        assert found.difference.method == "Student's t over paired seeds"


def test_nothing_in_common():
    for first, second in ((Outcome({}), Outcome({0: 0.5})), (Outcome({1: 0.5}), Outcome({0: 0.5})), (Outcome({}), Outcome({}))):
        found = compare(first, second, equivalence=0.01)
        assert found.difference is found.p is found.p_adjusted is found.equivalence_p is None
        assert (found.verdict, found.seeds) == ("undecided", ())
        assert found.sentence == "Undecided: a and b have no finished seed in common."


class TestHolm:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            # R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm").
            ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
            # R: p.adjust(c(0.01, 0.02, 0.5, 0.6), "holm"), in another order.
            ([0.5, 0.01, 0.6, 0.02], [1.0, 0.04, 1.0, 0.06]),
            # stdlib's padjust, which follows R: 0.319, 0.201, 0.4, 0.374, 0.113 become 0.957, 0.804, 0.957, 0.957, 0.565.
            ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),
            ([], []),
            ([None], [None]),
        ],
    )
    def test_as_r_adjusts(self, given, expected):
        assert holm(given) == pytest.approx(expected)

    @settings(max_examples=15)  # it collects garbage every time
    @given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=12))
    def test_as_statsmodels_adjusts_with_the_missing_as_1(self, values):
        _, theirs, _, _ = multipletests([1.0 if value is None else value for value in values], method="holm")
        for value, ours, other in zip(values, holm(values), theirs, strict=True):
            assert ours is None if value is None else ours == pytest.approx(other)

    def test_missing_runs_do_not_make_the_others_easier(self):
        clear, other, none = outcome([0.9, 0.91, 0.93]), outcome([0.8, 0.82, 0.81]), Outcome({})
        variants = {"a": clear, "b": other, "c": none, "d": none}
        plans = [PlannedComparison(*pair) for pair in itertools.combinations("abcd", 2)]
        found = effects(variants, plans, equivalence=0)
        assert found[0].p is not None
        assert found[0].p_adjusted == pytest.approx(6 * found[0].p)
        assert [effect.p_adjusted for effect in found[1:]] == [None] * 5

    def test_a_difference_that_counts_alone_may_not_count_among_many(self):
        first, second = outcome([0.9, 0.91, 0.92]), outcome([0.88, 0.885, 0.88])
        alone = compare(first, second)
        many = [PlannedComparison("a", "b")] * 9
        among = effects({"a": first, "b": second}, many, equivalence=0)[0]
        assert (alone.verdict, among.verdict) == ("better", "undecided")
        assert "Alone it would count as a difference (p = 0.0" in among.sentence
        assert "as one of 9 comparisons it does not" in among.sentence

    def test_equivalence_is_adjusted_too(self):
        first, second = outcome([0.9, 0.91, 0.92]), outcome([0.902, 0.908, 0.921])
        margins = {m: compare(first, second, equivalence=m).equivalence_p for m in (0.005, 0.01)}
        many = [PlannedComparison("a", "b")] * 3
        for margin, p in margins.items():
            assert p is not None
            among = effects({"a": first, "b": second}, many, equivalence=margin)[0]
            assert among.equivalence_p == pytest.approx(min(1, 3 * p))


class TestSentences:
    def test_a_difference(self):
        found = compare(outcome([0.80, 0.81, 0.83]), outcome([0.788, 0.799, 0.817]))
        assert found.sentence == "a is 1.20 points above b (0.95 to 1.45; 3 paired seeds; p = 0.0023)."
        wide = compare(outcome([0.78, 0.82, 0.83]), outcome([0.70, 0.71, 0.77]))
        assert wide.sentence == "a is 8.3 points above b (2.1 to 14.6; 3 paired seeds; p = 0.029)."

    def test_no_verdict_of_difference_without_an_interval_that_leaves_out_zero(self):
        rng = np.random.default_rng(0)
        seen = set()
        for _ in range(200):
            first, second = (outcome(map(float, rng.normal(0.8, 0.01, 3))) for _ in range(2))
            found = compare(first, second, equivalence=0.03)
            seen.add(found.verdict)
            assert found.difference is not None
            decided = found.difference.low > 0 or found.difference.high < 0
            assert (found.verdict in ("better", "worse")) == decided
            assert found.sentence.startswith("Undecided: ") == (found.verdict == "undecided")
            assert found.sentence.startswith("Equivalent within 3 points") == (found.verdict == "equivalent")
        assert len(seen) == 4

    def test_a_difference_that_is_too_small_to_matter(self):
        found = compare(outcome([0.8, 0.81, 0.82]), outcome([0.799, 0.8091, 0.8189]), equivalence=0.005)
        assert found.verdict == "better"
        assert found.sentence.endswith("The difference is smaller than the margin of 0.5 points (p < 0.001).")
        assert "0.10 points above" in found.sentence

    def test_p_never_rounds_to_the_other_side(self):
        from convatlas.study.sentences import _p

        for p in (0.0496, 0.04999, 0.0499999):
            assert _p(p) == "p just below 0.05"
        assert [_p(p) for p in (0.05, 0.0312, 0.0009, 0.62, 1.0)] == ["p = 0.05", "p = 0.031", "p < 0.001", "p = 0.62", "p = 1"]


def comb_row(n):
    """Pascal's row n."""
    row = [1]
    for k in range(n):
        row.append(row[-1] * (n - k) // (k + 1))
    return row
