"""Learning-rate schedules: where they begin, drop and end, and that torch's own go the same way."""

import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from convatlas.arith.schedules import ABOUT, EXPONENTIAL_END, POWER, RESTARTS, SCHEDULES, factor_at

STEPPED = ("step", "multi-step")
ENDS = {
    "constant": 1.0,
    "step": 0.01,
    "multi-step": 0.01,
    "exponential": 0.01,
    "polynomial": 0.0,
    "cosine": 0.0,
    "cosine-restarts": 0.0,
    "one-cycle": 0.001,
    "plateau": 1.0,
}
names = st.sampled_from(list(SCHEDULES))
shares = st.floats(0, 1)
warmups = st.floats(0, 0.99)


def test_each_has_its_line_and_its_source_in_full():
    assert list(ABOUT) == list(SCHEDULES) == list(ENDS)
    for name, about in ABOUT.items():
        author = about.source.split(": ")[-1].split(" ")[0]
        doc = SCHEDULES[name].__doc__
        assert f"Source: {author}" in doc
        assert about.source.rpartition("section ")[2] in doc
        assert (about.shape + about.source).isascii(), "so that any terminal can show it"


@given(names, shares, warmups)
def test_factors_are_shares(name, progress, warmup):
    factor = factor_at(name, progress, warmup=warmup)
    assert math.isfinite(factor) and 0 <= factor <= 1


@given(names, st.floats(1, 3), warmups)
def test_past_the_budget_each_stays_where_it_ended(name, progress, warmup):
    assert factor_at(name, progress, warmup=warmup) == factor_at(name, 1.0, warmup=warmup)
    assert factor_at(name, progress, warmup=warmup) == pytest.approx(ENDS[name], abs=1e-12)


@given(names, st.floats(1e-6, 0.99), shares)
def test_the_warm_up_is_straight(name, warmup, part):
    factor = factor_at(name, part * warmup * (1 - 1e-9), warmup=warmup)
    assert factor == pytest.approx(0.1 + 0.9 * part if name == "one-cycle" else part, abs=1e-6)


@given(names, warmups)
def test_the_peak_is_reached_where_the_warm_up_ends(name, warmup):
    drop = {"step": 1 / 3, "multi-step": 1 / 2}.get(name, 1.0)
    assert (factor_at(name, warmup, warmup=warmup) == 1.0) == (warmup < drop), "a drop within the warm-up is taken at its end"


@given(names.filter(lambda name: name != "cosine-restarts"), warmups, shares, shares)
def test_after_the_warm_up_none_rises(name, warmup, one, other):
    first, second = sorted(warmup + (1 - warmup) * share for share in (one, other))
    assert factor_at(name, first, warmup=warmup) >= factor_at(name, second, warmup=warmup) - 1e-12


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_warmup_begins_at_the_peak(name):
    assert factor_at(name, 0.0, warmup=0.0) == 1.0


@pytest.mark.parametrize(("name", "drops"), [("step", (30, 60)), ("multi-step", (45, 68))])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.2])
def test_drops_are_shares_of_the_whole_budget(name, drops, warmup):
    factors = [factor_at(name, epoch / 90, warmup=warmup) for epoch in range(20, 91)]
    assert [epoch for epoch, factor in enumerate(factors[1:], 21) if factor < factors[epoch - 21]] == list(drops)
    assert sorted(set(factors)) == [0.01, 0.1, 1.0]


def test_he_and_others_drop_after_32k_and_48k_of_64k():
    rates = [0.1 * factor_at("multi-step", step / 64_000, warmup=0.0) for step in (31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001])


def test_efficientnets_exponential_ends_where_its_docstring_says():
    end = 0.97 ** (350 / 2.4)
    assert end == pytest.approx(0.012, abs=5e-4)
    assert end == pytest.approx(EXPONENTIAL_END, abs=2.5e-3)


def test_restarts_fit_exactly_and_each_is_twice_as_long():
    lengths = [end - start for start, end in pairwise(RESTARTS)]
    assert lengths == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    for restart in RESTARTS[1:-1]:
        assert factor_at("cosine-restarts", restart - 1e-9, warmup=0.0) == pytest.approx(0, abs=1e-12)
        assert factor_at("cosine-restarts", restart, warmup=0.0) == 1.0
    assert factor_at("cosine-restarts", 0.2 + 0.8 * 5 / 7, warmup=0.2) == pytest.approx(0.5)


TORCH = {
    "constant": (60, lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0)),
    "step": (90, lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)),
    "multi-step": (64, lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[32, 48], gamma=0.1)),
    "exponential": (50, lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.01 ** (1 / 50))),
    "polynomial": (50, lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=50, power=POWER)),
    "cosine": (50, lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)),
    "cosine-restarts": (70, lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)),
    "one-cycle": (50, lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, end_factor=0.001, total_iters=50)),
}


@pytest.mark.parametrize("name", TORCH)
def test_torchs_own_goes_the_same_way(name):
    steps, make = TORCH[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    for step in range(steps):
        assert factor_at(name, step / steps, warmup=0.0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        scheduler.step()


def test_torchs_warm_up_goes_the_same_way():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm_up = lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it does itself
        both = lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[10])
        for step in range(50):
            assert factor_at("cosine", step / 50, warmup=0.2) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6), step
            optimizer.step()
            both.step()


def cosine_then(progress, warmup):
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (min(progress, 1.0) - warmup) / (1 - warmup)))


def one_cycle_then(progress, warmup):
    if progress < warmup:
        return 0.1 + 0.9 * progress / warmup
    rest = (min(progress, 1.0) - warmup) / (1 - warmup)
    return 1.0 + rest * (0.001 - 1.0)


def constant_then(progress, warmup):
    return progress / warmup if progress < warmup else 1.0


@given(st.floats(0, 1.5), warmups)
def test_earlier_runs_are_repeated_bit_for_bit(progress, warmup):
    """The three that runs were made with before there were others, as they stood then."""
    for name, then in (("cosine", cosine_then), ("one-cycle", one_cycle_then), ("constant", constant_then)):
        assert factor_at(name, progress, warmup=warmup) == then(progress, warmup)
