"""Speed, memory and energy: measured in turn, and in a process that does nothing else."""

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from convatlas.arith.order import median_interval
from convatlas.errors import UserError
from convatlas.models.user_files import trust
from convatlas.records import codec
from convatlas.records.findings import Speed
from convatlas.study import measuring, peak
from convatlas.study.contestant import Contestant
from convatlas.study.energy import EnergyMeter
from convatlas.study.measuring import measure
from convatlas.study.peak import PeakOrder, Peaks, measure_peaks

from ..training.makers import small_recipe

MIB = 2**20


def powercap(folder, *zones):
    """A powercap folder with (name, energy, largest) for each zone."""
    for i, (name, energy, largest) in enumerate(zones):
        zone = folder / f"intel-rapl:{i}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def put(folder, *energies):
    for i, energy in enumerate(energies):
        (folder / f"intel-rapl:{i}" / "energy_uj").write_text(f"{energy}\n")


# Energy


def test_packages_are_added_and_what_is_within_them_is_not(tmp_path):
    folder = powercap(tmp_path, ("package-0", 100, 999_999), ("package-1", 5, 999_999), ("psys", 7, 999_999))
    core = folder / "intel-rapl:0:0"
    core.mkdir()
    (core / "name").write_text("core")
    meter = EnergyMeter(folder)
    before = meter.read()
    assert before == (100, 5)
    put(folder, 500_100, 250_005, 900_000)
    assert meter.joules(before, meter.read()) == pytest.approx(0.75)


def test_a_counter_that_begins_again_is_followed(tmp_path):
    folder = powercap(tmp_path, ("package-0", 999_990, 999_999))
    meter = EnergyMeter(folder)
    before = meter.read()
    put(folder, 10)
    assert meter.joules(before, meter.read()) == pytest.approx(20e-6)


def test_where_the_machine_does_not_tell_there_is_none(tmp_path):
    silent = EnergyMeter(tmp_path / "nothing")
    assert silent.read() is None and silent.joules(None, None) is None
    torn = powercap(tmp_path / "torn", ("package-0", "", 999_999), ("package-1", 5, 999_999))
    assert EnergyMeter(torn).read() is None
    gone = EnergyMeter(powercap(tmp_path / "gone", ("package-0", 1, 999_999)))
    before = gone.read()
    (tmp_path / "gone" / "intel-rapl:0" / "energy_uj").unlink()
    assert gone.read() is None and gone.joules(before, gone.read()) is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may read everything")
def test_a_counter_that_only_administrators_may_read(tmp_path):
    folder = powercap(tmp_path, ("package-0", 1, 999_999))
    (folder / "intel-rapl:0" / "energy_uj").chmod(0)
    assert EnergyMeter(folder).read() is None


# Memory

GREEDY = """
import torch
from torch import nn

class Greedy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))

    def forward(self, x):
        big = torch.ones(160 if self.training else 96, 2**20, dtype=torch.uint8)
        answer = self.body(x) + big[0, 0] * 0
        del big
        return answer
"""


def order(model="lenet.pocket", **changes):
    return PeakOrder(
        **{
            "recipe": small_recipe(model=model),
            "num_classes": 10,
            "in_chans": 3,
            "image_size": 32,
            "batch_size": 16,
            "threads": 1,
            **changes,
        }
    )


def test_a_network_that_takes_so_many_bytes_is_seen_to_take_them(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(GREEDY)
    trust(file)
    found = measure_peaks(order(f"{file}:Greedy", image_size=16))
    assert 96 * MIB <= found.inference <= 112 * MIB
    assert 160 * MIB <= found.training <= 176 * MIB


def test_a_file_that_nobody_named_is_not_run(tmp_path):
    file = tmp_path / "other.py"
    file.write_text("raise SystemExit")
    with pytest.raises(UserError, match="was not named in this command"):
        measure_peaks(order(f"{file}:make"))


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [(1, "Traceback\nKeyError: 'sdg'\n", "KeyError: 'sdg'"), (-9, "", "its process ended with -9")],
)
def test_a_process_that_fails_says_why(monkeypatch, code, stderr, said):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], code, "", stderr))
    with pytest.raises(UserError, match=f"the memory of lenet.pocket could not be measured: {said}"):
        measure_peaks(order())


def test_a_process_that_takes_for_ever_is_ended(monkeypatch):
    def run(*_, timeout, **__):
        raise subprocess.TimeoutExpired([], timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="lenet.pocket took over 600 s for 3 steps. Give smaller batches"):
        measure_peaks(order())


def test_units_of_the_high_water_mark(monkeypatch, tmp_path):
    real = peak.highest_mark()
    assert real > 50 * MIB
    monkeypatch.setattr(peak, "STATUS", tmp_path / "none")
    by_usage = peak.highest_mark()
    assert by_usage > 50 * MIB
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak.highest_mark() == pytest.approx(by_usage / 1024, rel=0.01)
    monkeypatch.setattr(os, "name", "nt")
    assert peak._usage() is None
    assert peak._above(None, None) is None


def test_without_a_reset_the_mark_so_far_is_what_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "RESET", tmp_path)  # a folder cannot be written to
    before = peak.highest_mark()
    assert peak._reset() >= before


def test_the_process_speaks_json(monkeypatch, capsys):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(codec.to_line(order())))
    heard = []

    def told(given):
        heard.append(given)
        return Peaks(1, None)

    assert peak.main(told) == 0
    assert heard == [order()]
    assert codec.from_text(Peaks, capsys.readouterr().out, where="x") == Peaks(1, None)


# Time


@pytest.fixture
def quick(monkeypatch):
    """Turns that are short, and memory that nobody measures."""
    monkeypatch.setattr(measuring, "SECONDS_A_TURN", 0.001)
    monkeypatch.setattr(measuring, "measure_peaks", lambda order: Peaks(1000, 2000))


def lenets(**more):
    return measure(
        {"one": "lenet.pocket", "two": small_recipe(model="lenet.pocket", ema=0.9)},
        **{"num_classes": 10, "in_chans": 3, "image_sizes": {"one": 32, "two": 28}, "batch_size": 8, "rounds": 6, **more},
    )


class Operations(TorchDispatchMode):
    """A clock that goes a microsecond further with each of torch's operations, however busy the machine is."""

    def __init__(self):
        super().__init__()
        self.done = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.done += 1
        return function(*args, **kwargs or {})

    def nanoseconds(self):
        return 1000 * self.done


def test_what_is_measured(quick, tmp_path, monkeypatch):
    torch.manual_seed(3)
    before, told = torch.get_rng_state(), []
    folder = powercap(tmp_path, ("package-0", 0, 10**9))
    with Operations() as clock:
        monkeypatch.setattr(measuring, "perf_counter_ns", clock.nanoseconds)
        found = lenets(progress=lambda *at: told.append(at), meter=Ticking(folder))
    assert list(found) == ["one", "two"]
    for speed in found.values():
        assert codec.from_text(Speed, codec.to_text(speed), where="x") == speed
        assert (speed.rounds, speed.batch_size, speed.inference_peak_bytes, speed.train_peak_bytes) == (6, 8, 1000, 2000)
        for each in (speed.latency, speed.latency_p95, speed.throughput, speed.train_throughput):
            assert 0 < each.low <= each.mean <= each.high and each.n == 6
            assert each.method == "median over rounds, interval by order statistics"
        assert speed.latency.mean <= speed.latency_p95.mean
        assert speed.train_throughput.high < speed.throughput.low / 2, "an update has more operations than an answer, twice over"
        assert speed.joules > 0
    assert told[:3] == [("memory", 0, 2), ("memory", 1, 2), ("memory", 2, 2)] and told[-1] == ("rounds", 6, 6)
    assert torch.equal(before, torch.get_rng_state())


def test_torch_has_its_threads_back(quick, monkeypatch):
    seen = []

    def failing(*_, **__):
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "_in_rounds", failing)
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        lenets(threads=before + 1)
    assert seen == [before + 1] and torch.get_num_threads() == before


class Ticking(EnergyMeter):
    """A machine that takes a joule between any two readings."""

    def read(self):
        counter = self._zones[0].counter
        counter.write_text(str(int(counter.read_text()) + 10**6))
        return super().read()


def test_without_counters_there_is_no_energy(quick, tmp_path):
    found = lenets(meter=EnergyMeter(tmp_path / "none"))
    assert {speed.joules for speed in found.values()} == {None}


def test_each_has_its_turn_in_each_round_in_another_order(quick, monkeypatch):
    turns, real = [], measuring._turn

    def turn(each, *rest):
        turns.append(each.x.shape[-1])
        real(each, *rest)

    monkeypatch.setattr(measuring, "_turn", turn)
    lenets(rounds=12)
    first, turns = turns, []
    rounds = [tuple(first[i : i + 2]) for i in range(0, 24, 2)]
    assert {tuple(sorted(each)) for each in rounds} == {(28, 32)}
    assert set(rounds) == {(28, 32), (32, 28)}, "neither is always the first"


def test_a_machine_that_slows_down_favours_none(quick, monkeypatch):
    """Two networks of the same speed, on a machine that takes 4 % longer with every turn: their intervals overlap."""
    clock = {"turn": 0}
    real = measuring._turn

    def timed(each, call, often):
        return [1e-3 * 1.04 ** clock["turn"]] * often

    def turn(*given):
        real(*given)
        clock["turn"] += 1

    monkeypatch.setattr(measuring, "_timed", timed)
    monkeypatch.setattr(measuring, "_turn", turn)
    found = lenets(rounds=20)
    one, two = (found[name].latency for name in ("one", "two"))
    assert clock["turn"] == 40
    assert one.mean / two.mean == pytest.approx(1, abs=0.09) and one.low < two.high and two.low < one.high
    assert one.low > 1e-3


def test_percentiles_and_intervals_are_the_known_ones(quick, monkeypatch):
    monkeypatch.setattr(measuring, "SECONDS_A_TURN", 0.1)
    values = iter(range(10**6))
    monkeypatch.setattr(measuring, "_timed", lambda each, call, often: [float(next(values)) / 1e3 for _ in range(often)])
    found = lenets(rounds=6)
    assert found["one"].latency_p95.mean > found["one"].latency.mean
    assert measuring._quantile([0.0, 1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert measuring._quantile([float(i) for i in range(101)], 0.95) == pytest.approx(95.0)
    assert measuring._quantile([7.0], 0.95) == 7.0
    low, middle, high = median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    interval = measuring._interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    assert (interval.low, interval.mean, interval.high) == (low, middle, high)


def test_a_step_is_that_of_the_recipe():
    recipe = small_recipe(model="lenet.pocket", optimizer="sgd", ema=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        each = Contestant(recipe, torch.randn(4, 3, 32, 32), num_classes=10)
    before = {name: value.clone() for name, value in each.model.state_dict().items()}
    each.answer()
    assert all(torch.equal(value, before[name]) for name, value in each.model.state_dict().items())
    each.step()
    moved = [name for name, value in each.model.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) == len(list(each.model.parameters()))
    assert each.optimizer.state and each.average is not None
    assert each.choices.precision == "fp32"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 5}, "rounds is 5. Give a whole number from 6"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"threads": 0}, "threads is 0"),
        ({"image_sizes": {"one": 32}}, "two has no image size"),
    ],
)
def test_bad_input(quick, changes, said):
    with pytest.raises(UserError, match=said):
        lenets(**changes)


def test_nothing_to_measure(quick):
    with pytest.raises(UserError, match="nothing to measure"):
        measure({}, num_classes=10, in_chans=3, image_sizes={}, batch_size=8)
