"""The benchmarks run and print what they promise; their figures are for quiet machines."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.untraced  # other tests reach the lines that their processes do
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def table(*words: str) -> list[list[str]]:
    """The cells of the Markdown table that a benchmark prints, without the line of dashes."""
    done = subprocess.run([sys.executable, BENCHMARKS / words[0], *words[1:]], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_training_step_is_timed_beside_other_loops(tmp_path, monkeypatch) -> None:
    """With augmented images; without them the loops are given the same batch, which is less. Our runs are not left behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    few = ("--batch-size", "8", "--rounds", "6", "--steps", "1", "--loops", "teaching", "expert", "convatlas")
    head, row = table("train_step.py", "lenet5", *few, "--data")
    assert head == ["network", "teaching", "expert", "convatlas", "against teaching", "against expert", "of the peak"]
    for ratio in row[4:6]:
        middle, low, high = map(float, re.findall(r"[\d.]+", ratio))
        assert 0 < low <= middle <= high
    share = re.fullmatch(r"(\d+) % of (\d+\.\d\d) TFLOP/s", row[6])
    assert share is not None
    assert 0 <= int(share[1]) < 100
    assert float(share[2]) > 0.005
    assert not list(tmp_path.glob("*/run"))


def test_of_several_processes_each_counts_once_and_every_second_one_begins_at_the_other_end(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    train_step = importlib.import_module("train_step")
    begun_with = []

    def rounds(name: str, options: argparse.Namespace, *, first: int) -> dict[str, list[float]]:
        begun_with.append(first)
        return {"teaching": [10.0 * len(begun_with), 20.0 * len(begun_with)], "convatlas": [2.0, 4.0]}

    monkeypatch.setattr(train_step, "_rounds", rounds)
    options = argparse.Namespace(processes=3, loops=["teaching", "convatlas"])
    assert train_step.turns("lenet5", options) == {"teaching": [15.0, 30.0, 45.0], "convatlas": [3.0, 3.0, 3.0]}
    assert begun_with == [1, -1, 1]


def test_what_the_loop_costs_is_timed_with_and_without_augmentation() -> None:
    words = ("lenet5", "--batch-size", "8", "--rounds", "6", "--steps", "2", "--turns", "2")
    head, row = table("overhead.py", *words)
    assert head == ["network", "bare, ms a step", "loop", "loop and augmentation"]
    assert float(row[1]) > 0
    for ratio in row[2:]:
        middle, low, high = map(float, re.findall(r"[\d.]+", ratio))
        assert 0 < low <= middle <= high


def test_of_several_processes_the_loops_cost_is_the_median_of_their_medians(monkeypatch) -> None:
    """Six processes of three rounds, one of them twice as slow in all; a bare step is the median over all rounds."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    overhead = importlib.import_module("overhead")
    ratios = iter([*(1.0, 1.1, 1.2, 1.3, 1.4, 2.0), *(3.0, 3.1, 3.2, 3.3, 3.4, 4.0)])

    def pairs(name: str, loop: str, options: argparse.Namespace) -> list[list[float]]:
        ratio = next(ratios)
        return [[0.5 * ratio, 0.5], [9.0, 0.5], [0.0, 0.5]]

    monkeypatch.setattr(overhead, "_pairs", pairs)
    options = argparse.Namespace(processes=6, steps=5, turns=2)
    row = overhead._row("lenet5", options)
    assert row == ["lenet5", "50.00", "1.250 (1.000 to 2.000)", "3.250 (3.000 to 4.000)"]


def test_a_round_of_the_loops_cost_is_an_epoch_of_the_run_beside_as_many_bare_steps(monkeypatch, capsys) -> None:
    """The run's seconds come first; two rounds do not count. The clock stands at the number of steps that both have taken."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    overhead = importlib.import_module("overhead")
    steps = {"run": 0, "bare": 0}
    monkeypatch.setattr(overhead, "time", SimpleNamespace(perf_counter=lambda: steps["run"] + 100.0 * steps["bare"]))

    def bare_steps(count: int) -> None:
        steps["bare"] += count

    beside = overhead.Beside(argparse.Namespace(steps=3, turns=4, rounds=2), lambda choices: bare_steps)
    beside.chosen(None)
    with pytest.raises(SystemExit):
        while True:
            steps["run"] += 1
            assert not beside.stopping()
    assert capsys.readouterr().out == "[12.0, 1200.0]\n" * 2
    assert steps == {"run": 4 * 12, "bare": 4 * 12}


@pytest.mark.parametrize("script", ["train_step.py", "overhead.py"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rounds", "5"), "--rounds: an interval needs 6 or more"),
        (("--rounds", "9", "--processes", "2"), "--processes: 1, or the 6 or more that an interval needs"),
        (("--rounds", "0", "--processes", "6"), "--rounds: 1 or more"),
        (("--processes", "-1"), "--processes: 1 or more"),
        (("--steps", "0"), "--steps: 1 or more"),
        (("--batch-size", "0"), "--batch-size: 1 or more"),
        (("--threads", "0"), "--threads: 1 or more"),
        (("nosuch",), "there is no model called 'nosuch'"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(script, words, said) -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / script, "lenet5", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_ours_must_be_among_the_loops() -> None:
    words = ("train_step.py", "lenet5", "--loops", "teaching", "timm")
    done = subprocess.run([sys.executable, BENCHMARKS / words[0], *words[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--loops: convatlas is what the others are held against" in done.stderr


def test_a_worker_that_ends_is_told_in_a_line() -> None:
    """A network that cannot be trained on images of this size."""
    words = ("train_step.py", "vgg11", "--image-size", "8", "--batch-size", "2", "--loops", "teaching", "convatlas")
    done = subprocess.run([sys.executable, BENCHMARKS / words[0], *words[1:]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "teaching: ended before its turn was over"
