"""The verdict says what the intervals bear, and no more."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from convatlas.records.study import Interval
from convatlas.report.verdict import Verdict, listed, verdict
from convatlas.report.views import views

from .samples import study


def _judged(intervals: Sequence[tuple[float, float, float]], *, seeds: Sequence[int] = (0,)) -> Verdict:
    whole, runs = study(range(len(intervals)), seeds=seeds)
    rows = [
        replace(each, accuracy=Interval(mean, low, high, 7, "some method"))
        for each, (low, mean, high) in zip(whole.rows, intervals, strict=True)
    ]
    whole = replace(whole, rows=tuple(rows))
    return verdict(whole, views(whole, runs))


def test_clear_winner() -> None:
    found = _judged([(0.5, 0.6, 0.7), (0.8, 0.85, 0.9), (0.71, 0.75, 0.79)])
    assert found.headline == "AlexNet is the most accurate, at 85.0\u202f%; no other model’s interval overlaps its own."


def test_some_cannot_be_told_apart() -> None:
    found = _judged([(0.5, 0.6, 0.7), (0.8, 0.85, 0.9), (0.7, 0.75, 0.80), (0.79, 0.84, 0.89)])
    assert found.headline == (
        "AlexNet has the highest accuracy, 85.0\u202f%, but GoogLeNet and VGG cannot be told apart from it at this budget."
    )


def test_no_winner_where_all_overlap() -> None:
    found = _judged([(0.8, 0.85, 0.9), (0.8, 0.85, 0.9), (0.75, 0.79, 0.83)])
    assert found.headline.startswith("No winner: LeNet-5, AlexNet and VGG cannot be told apart at this budget.")


def test_one_model_has_nothing_to_be_compared_with() -> None:
    assert (
        _judged([(0.8, 0.85, 0.9)]).headline
        == "LeNet-5 reaches 85.0\u202f%. With one finished model there is nothing to compare it with."
    )


def test_nothing_finished() -> None:
    whole, _ = study([0])
    whole = replace(whole, rows=())
    assert verdict(whole, views(whole, [])).headline.startswith("No model has finished")


def test_basis_counts_images_and_seeds() -> None:
    assert _judged([(0.8, 0.85, 0.9)], seeds=(0, 1)).basis == (
        "Measured on 2\u202f000 test images, 2 seeds a model. 95\u202f% intervals: some method."
    )


@pytest.mark.parametrize(("seeds", "warned"), [((0,), True), ((0, 1), False)])
def test_one_seed_says_what_the_interval_leaves_out(seeds: Sequence[int], warned: bool) -> None:
    notes = " ".join(_judged([(0.8, 0.85, 0.9), (0.5, 0.6, 0.7)], seeds=seeds).notes)
    assert ("not the spread from seed to seed" in notes) is warned


def test_guessing_is_called_so() -> None:
    notes = " ".join(_judged([(0.2, 0.28, 0.36), (0.5, 0.6, 0.7)], seeds=(0, 1)).notes)  # four classes: guessing is 25 %
    assert notes == "Not shown to be better than guessing (25.0\u202f%): LeNet-5."


def test_listed() -> None:
    assert [listed(each) for each in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
