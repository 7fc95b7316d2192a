"""Temperatures and calibration errors: against known ones, against ones worked out by hand, and where there is little to fit to."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from convatlas.errors import UserError
from convatlas.study.statistics import calibration_error as study_error
from convatlas.transfer.calibration import brier_score, calibration, calibration_error, fit_temperature, reliability


def drawn(n, *, classes=5, true=1.0, spread=3.0, seed=0):
    """Logits, and labels that come with the probabilities softmax(logits / true)."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n, classes, generator=generator)
    return logits, torch.multinomial((logits / true).softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(true):
    logits, labels = drawn(20_000, true=true)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


def test_it_is_the_least_of_what_is_minimised_and_always_the_same():
    logits, labels = drawn(40, true=2.0)

    def total(t):
        return float(F.cross_entropy(logits.double() / t, labels, reduction="sum")) + 4 * (1 / t - 1 + math.log(t))

    grid = [0.05 * 400 ** (i / 20_000) for i in range(20_001)]
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(min(grid, key=total), rel=1e-3)
    assert found == fit_temperature(logits, labels)


def test_many_images_outweigh_what_was_believed_before():
    """Ten times the images, a tenth of the pull."""
    logits, labels = drawn(3000, true=3.0)
    plain = min((0.5 + 0.001 * i for i in range(5000)), key=lambda t: float(F.cross_entropy(logits.double() / t, labels)))
    few = fit_temperature(logits[:30], labels[:30])
    assert abs(fit_temperature(logits, labels) - plain) < 0.02 < abs(few - plain)


def test_few_images_without_an_error_do_not_make_it_certain():
    """Cross-entropy alone would take the smallest temperature there is."""
    logits = torch.tensor([[4.0, 0.0], [0.0, 3.0], [2.0, 0.0]])
    labels = torch.tensor([0, 1, 0])
    losses = [float(F.cross_entropy(logits / t, labels)) for t in (0.05, 0.5, 1.0)]
    assert losses == sorted(losses)
    assert 0.7 < fit_temperature(logits, labels) < 1
    assert fit_temperature(logits * 1e6, labels) == pytest.approx(1, abs=1e-3), "there is nothing left to gain"


def test_equal_logits_and_answers_that_are_all_wrong():
    assert fit_temperature(torch.zeros(9, 4), torch.arange(9) % 4) == pytest.approx(1, abs=1e-6)
    wrong = fit_temperature(torch.tensor([[5.0, 0.0]]).repeat(5000, 1), torch.ones(5000, dtype=torch.int64))
    assert 15 < wrong <= 20


def test_the_temperature_changes_no_answer_and_not_the_logits():
    logits, labels = drawn(200, true=2.0)
    before = logits.clone()
    found = fit_temperature(logits, labels)
    assert torch.equal(logits, before)
    assert torch.equal((logits / found).argmax(1), logits.argmax(1))
    mended, plain = calibration(logits, labels, temperature=found), calibration(logits, labels, temperature=1.0)
    assert mended.nll < plain.nll and mended.error < plain.error
    assert (mended.temperature, plain.temperature) == (found, 1.0)


def test_an_error_worked_out_by_hand():
    """Of bins a fifteenth wide: 0.95 and 0.97 are in the last, 0.6 is the upper end of the ninth, 0.61 in the tenth."""
    sure = torch.tensor([0.95, 0.97, 0.6, 0.61], dtype=torch.float64)
    right = torch.tensor([True, False, True, True])
    bins = reliability(sure, right)
    assert [(round(each.low * 15), round(each.high * 15), each.n, each.right) for each in bins] == [
        (8, 9, 1, 1.0),
        (9, 10, 1, 1.0),
        (14, 15, 2, 0.5),
    ]
    assert calibration_error(bins) == pytest.approx((0.4 + 0.39 + 2 * 0.46) / 4)


def test_certainty_and_nothing_at_all_have_bins():
    bins = reliability(torch.tensor([0.0, 1.0]), torch.tensor([False, True]))
    assert [(each.low, each.high) for each in bins] == [(0.0, 1 / 15), (14 / 15, 1.0)]
    assert calibration_error(bins) == 0


def test_the_error_is_that_of_studies():
    logits, labels = drawn(700, true=1.7)
    sure, said = logits.double().softmax(1).max(1)
    theirs = study_error(sure.tolist(), (said == labels).tolist())
    assert calibration(logits, labels, temperature=1.0).error == pytest.approx(theirs)


def test_perfect_probabilities_have_the_error_that_chance_gives():
    large = calibration(*drawn(50_000), temperature=1.0)
    assert large.error < 0.01 and large.by_chance < 0.01
    small = [calibration(*drawn(100, seed=seed), temperature=1.0) for seed in range(40)]
    mean = sum(each.error for each in small) / 40
    assert mean == pytest.approx(sum(each.by_chance for each in small) / 40, rel=0.15)
    assert mean > 0.05, "which is far from nothing on a hundred images"


def test_chance_on_one_image():
    """Right with probability p, the gap is 1 - p, else p: 2 p (1 - p) on average."""
    one = calibration(torch.tensor([[math.log(4.0), 0.0]]), torch.tensor([0]), temperature=1.0)
    assert one.by_chance == pytest.approx(2 * 0.8 * 0.2, abs=0.03)
    assert one.error == pytest.approx(0.2) and len(one.bins) == 1
    assert one.nll == pytest.approx(-math.log(0.8))


def test_a_brier_score_worked_out_by_hand():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert brier_score(probabilities, torch.tensor([0, 2])) == pytest.approx((0.09 + 0.04 + 0.01 + 2) / 2)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "the logits have shape (0, 3)"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), "the logits have shape (3, 1)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "the logits have shape (3,)"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "the network's logits are not finite"),
        (torch.zeros(2, 3), torch.tensor([0]), "the labels do not fit"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "the labels do not fit"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "the labels do not fit"),
    ],
)
def test_refused(logits, labels, said):
    for ask in (fit_temperature, lambda *given: calibration(*given, temperature=1.0)):
        with pytest.raises(UserError, match=re.escape(said)):
            ask(logits, labels)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(UserError, match="the temperature is"):
        calibration(torch.zeros(2, 3), torch.tensor([0, 1]), temperature=temperature)
