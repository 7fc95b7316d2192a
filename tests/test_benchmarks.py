"""The benchmarks run and print what they promise; their figures are for quiet machines."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.untraced  # other tests reach the lines that their processes do
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
COUNTED = pytest.mark.parametrize(
    "counts", [("--rounds", "6"), ("--rounds", "1", "--processes", "6")], ids=["rounds", "processes"]
)


def table(*words: str) -> list[list[str]]:
    """The cells of the Markdown table that a benchmark prints, without the line of dashes."""
    done = subprocess.run([sys.executable, BENCHMARKS / words[0], *words[1:]], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@COUNTED
def test_a_training_step_is_timed_beside_other_loops(counts) -> None:
    """With augmented images; without them the loops are given the same batch, which is less."""
    few = ("--batch-size", "8", *counts, "--steps", "1", "--loops", "teaching", "expert", "convatlas")
    head, row = table("train_step.py", "lenet5", *few, "--data")
    assert head == ["network", "teaching", "expert", "convatlas", "against teaching", "against expert", "of the peak"]
    for ratio in row[4:6]:
        middle, low, high = map(float, re.findall(r"[\d.]+", ratio))
        assert 0 < low <= middle <= high
    share = re.fullmatch(r"(\d+) % of (\d+\.\d\d) TFLOP/s", row[6])
    assert share is not None
    assert 0 <= int(share[1]) < 100
    assert float(share[2]) > 0.005


@COUNTED
def test_what_the_loop_costs_is_timed_with_and_without_augmentation(counts) -> None:
    head, row = table("overhead.py", "lenet5", "--batch-size", "8", *counts, "--steps", "2")
    assert head == ["network", "bare, ms a step", "loop", "loop and augmentation"]
    assert float(row[1]) > 0
    assert all(re.match(r"\d\.\d{3} \(", cell) for cell in row[2:])


@pytest.mark.parametrize("script", ["train_step.py", "overhead.py"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rounds", "5"), "--rounds: an interval needs 6 or more"),
        (("--rounds", "9", "--processes", "2"), "--processes: an interval needs 6 or more"),
        (("--rounds", "0", "--processes", "6"), "--rounds: 1 or more"),
    ],
)
def test_what_has_no_interval_is_refused_at_once(script, words, said) -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / script, "lenet5", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
