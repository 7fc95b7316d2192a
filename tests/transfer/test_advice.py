"""What a tournament advises: never more than its intervals say."""

from convatlas.records.study import Interval
from convatlas.records.tournament import Standing
from convatlas.transfer.advice import advice_of


def standing(name, accuracy, *, gap=None, seconds=30.0, winner_seconds=30.0, rung=1):
    difference = None if gap is None else Interval(sum(gap) / 2, *gap, 3, "t")
    interval = Interval(accuracy, accuracy - 0.02, accuracy + 0.02, 3, "t")
    return Standing(name, rung, 3, interval, 0.3, difference, seconds, 90.0, 10, winner_seconds)


def test_who_won_and_by_which_interval():
    said = advice_of([standing("full", 0.93)], "full", n_images=243)
    assert said == ("Take full: 93.0% (95 % interval 91.0% to 95.0%) over 3 trainings on 243 images.",)


def test_who_is_not_told_apart_is_named_and_who_is_told_apart_is_not():
    said = advice_of(
        [standing("full", 0.93), standing("lp-ft", 0.92, gap=(-0.01, 0.03)), standing("bn-bias", 0.8, gap=(0.05, 0.2))],
        "full",
        n_images=243,
    )
    assert "Not told apart from it in its round: lp-ft." in said[1]
    assert not any("bn-bias" in sentence for sentence in said)


def test_a_much_cheaper_one_is_recommended_only_if_it_may_be_as_good():
    equal = [standing("full", 0.93), standing("probe", 0.92, gap=(-0.01, 0.03), seconds=2.0)]
    assert any("probe trains in 2 s instead of 30 s" in sentence for sentence in advice_of(equal, "full", n_images=9))
    worse = [standing("full", 0.93), standing("probe", 0.8, gap=(0.1, 0.2), seconds=2.0)]
    assert not any("trains in" in sentence for sentence in advice_of(worse, "full", n_images=9))
    behind = [standing("full", 0.93), standing("gradual", 0.62, gap=(-0.05, 0.66), seconds=1.0)]
    assert not any("trains in" in sentence for sentence in advice_of(behind, "full", n_images=9)), "30 points are no last point"
    dear = [standing("full", 0.93), standing("probe", 0.92, gap=(-0.01, 0.03), seconds=20.0)]
    assert not any("trains in" in sentence for sentence in advice_of(dear, "full", n_images=9))


def test_seconds_are_compared_with_the_winners_of_the_same_round():
    """What was out early had shorter trainings than the winner has in the end, and is no cheaper for that."""
    best = standing("full", 0.93, rung=3)
    early = standing("lp-ft", 0.92, gap=(-0.01, 0.03), seconds=8.0, winner_seconds=8.5)
    assert not any("trains in" in sentence for sentence in advice_of([best, early], "full", n_images=9))
    probe = standing("probe", 0.92, gap=(-0.01, 0.03), seconds=2.0, winner_seconds=8.5)
    said = advice_of([best, early, probe], "full", n_images=9)
    assert any("probe trains in 2 s instead of 8 s (in round 1) and was 1.0 points behind" in sentence for sentence in said)
    unknown = standing("probe", 0.92, gap=(-0.01, 0.03), seconds=2.0, winner_seconds=None)
    assert not any("trains in" in sentence for sentence in advice_of([best, unknown], "full", n_images=9))


def test_pretraining_is_above_random_weights_only_beyond_zero():
    above = advice_of([standing("full", 0.93), standing("scratch", 0.5, gap=(0.35, 0.5))], "full", n_images=9)
    assert any("Pretraining is above random weights: +42.5 points" in sentence for sentence in above)
    level = advice_of([standing("full", 0.93), standing("scratch", 0.9, gap=(-0.02, 0.08))], "full", n_images=9)
    assert any("Pretraining is not shown to be above random weights" in sentence for sentence in level)
    once = advice_of([standing("full", 0.93), standing("scratch", 0.5)], "full", n_images=9)
    assert "From random weights 50.0% were reached." in once


def test_where_random_weights_win_that_is_said():
    said = advice_of([standing("scratch", 0.9), standing("full", 0.8, gap=(0.05, 0.15))], "scratch", n_images=9)
    assert "Training from random weights did best" in said[-1]


def test_a_probe_that_wins_says_what_that_means():
    above = [standing("probe", 0.9), standing("scratch", 0.5, gap=(0.3, 0.5))]
    assert "much like those of the pretraining" in advice_of(above, "probe", n_images=9)[-1]
    level = [standing("probe", 0.55), standing("scratch", 0.5, gap=(-0.3, 0.4))]
    assert not any("much like" in sentence for sentence in advice_of(level, "probe", n_images=9))
