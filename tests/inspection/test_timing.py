"""Timing of calls against each other, on a clock that the tests set."""

import gc

import pytest
import torch

from convatlas.errors import UserError
from convatlas.inspection import timing
from convatlas.inspection.timing import compare_times
from convatlas.records import codec
from convatlas.records.calc import TimingComparison

SECOND = 1_000_000_000


class Clock:
    """Stands still but when a call says how long it takes."""

    def __init__(self, monkeypatch):
        self.now = 0
        self.order = []
        monkeypatch.setattr(timing, "perf_counter_ns", lambda: self.now)

    def call(self, name, *seconds):
        """A call that takes so long in turn."""
        turns = iter(seconds * 1000)

        def run():
            self.order.append(name)
            self.now += round(next(turns) * SECOND)

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_median_quartiles_and_ratio(clock):
    record = compare_times({"slow": clock.call("slow", 2, 4), "fast": clock.call("fast", 1, 1)}, warmup=0, least=8, seconds=0)
    slow, fast = record.timings
    assert (slow.name, slow.n, slow.lower, slow.median, slow.upper) == ("slow", 8, 2, 3, 4)
    assert (fast.n, fast.lower, fast.median, fast.upper) == (8, 1, 1, 1)
    (ratio,) = record.ratios
    assert (ratio.name, ratio.base) == ("fast", "slow")
    assert (ratio.low, ratio.median, ratio.high) == (0.25, 0.375, 0.5), "round by round, and not median by median"


def test_calls_take_turns_and_begin_in_turn(clock):
    compare_times({name: clock.call(name, 1) for name in "abc"}, warmup=1, least=6, seconds=0)
    assert "".join(clock.order) == "abc" + "abccba" * 3


def test_warm_up_does_not_count(clock):
    record = compare_times({"a": clock.call("a", *[100] * 3, *[1] * 20)}, warmup=3, least=10, seconds=12)
    assert (record.warmup, record.timings[0].n, record.timings[0].upper, record.ratios) == (3, 12, 1, ())


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 7), (7, 7), (9, 9), (8.5, 9), (1e9, 20)])
def test_as_long_as_wanted_but_within_bounds(clock, seconds, rounds):
    record = compare_times({"a": clock.call("a", 0.5), "b": clock.call("b", 0.5)}, seconds=seconds, least=7, most=20)
    assert {each.n for each in record.timings} == {rounds}


def test_progress_goes_up_to_one(clock):
    seen = []
    compare_times({"a": clock.call("a", 1)}, least=6, seconds=8, progress=lambda done, share: seen.append((done, share)))
    assert seen == [(i, i / 8) for i in range(1, 9)]


def test_what_a_device_has_still_to_do_counts(clock):
    def finish():
        clock.now += 2 * SECOND

    record = compare_times({"a": clock.call("a", 1)}, least=6, seconds=0, finish=finish)
    assert record.timings[0].median == 3


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_everything_is_left_as_it_was(on, fails):
    def call():
        assert not gc.isenabled()
        if fails:
            raise ZeroDivisionError

    before = gc.isenabled()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        (gc.enable if on else gc.disable)()
        if fails:
            with pytest.raises(ZeroDivisionError):
                compare_times({"a": call}, least=6)
        else:
            compare_times({"a": call}, least=6, most=6)
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, True)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_clock_too_coarse_to_see_anything(clock):
    record = compare_times({"a": clock.call("a", 0), "b": clock.call("b", 0)}, least=6, most=6)
    assert (record.timings[0].median, record.ratios[0].median) == (0, 0)


def test_a_real_difference_is_found():
    small, large = torch.randn(16, 16), torch.randn(512, 512)
    record = compare_times({"small": lambda: small @ small, "large": lambda: large @ large}, seconds=0.2)
    assert record.ratios[0].low > 2
    assert (record.threads, record.torch) == (torch.get_num_threads(), torch.__version__)
    assert codec.from_text(TimingComparison, codec.to_text(record), where="x") == record


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (1.99, False), (2.0, True), (9.0, True), (None, False)])
def test_a_busy_machine_is_told(monkeypatch, load, busy):
    def average():
        if load is None:
            raise OSError
        return (load, 0.0, 0.0)

    monkeypatch.setattr("os.getloadavg", average)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    record = compare_times({"a": lambda: None}, least=6, most=6)
    assert (record.load, record.cores, record.busy) == (load, 4, busy)


@pytest.mark.parametrize(
    ("calls", "options", "message"),
    [
        ({}, {}, "nothing to time"),
        ({"a": print}, {"least": 5}, "rounds are 5 to 1000"),
        ({"a": print}, {"least": 9, "most": 8}, "rounds are 9 to 8"),
        ({"a": print}, {"warmup": -1}, "warmup is -1"),
    ],
)
def test_what_cannot_be_timed(calls, options, message):
    with pytest.raises(UserError, match=message):
        compare_times(calls, **options)
