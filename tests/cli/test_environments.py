"""Where it may be run: without a home, a terminal, a network, or many open files; in other languages; with a clock that jumps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .makers import environment, picture_folder

CONVATLAS = Path(sys.executable).parent / "convatlas"
DIGITS = ["--data", "digits", "--image-size", "32"]
TRAIN = [CONVATLAS, "train", "lenet.pocket", *DIGITS, "--epochs", "1", "--batch-size", "500", "--out", "run"]
CANNOT_BE_WRITTEN = "/proc/nowhere"
"""Also for root, whom permissions do not stop."""


def run(words, folder, *, before=(), **changes):
    """Run in an environment of which the variables given as None are missing. Other tests count the lines that this reaches."""
    uncounted = {key: None for key in os.environ if key.startswith("COVERAGE_")}
    given = {k: v for k, v in {**environment(folder), **uncounted, **changes}.items() if v is not None}
    command = [*before, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, timeout=200, stdin=subprocess.DEVNULL)


HOMES = {
    "no HOME": {"HOME": None, "XDG_CACHE_HOME": None},
    "a HOME that cannot be written": {"HOME": CANNOT_BE_WRITTEN, "XDG_CACHE_HOME": None},
    "a cache that cannot be written": {"XDG_CACHE_HOME": CANNOT_BE_WRITTEN},
    "an empty PATH": {"PATH": ""},
}
TERMINALS = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"},
    "TERM=dumb": {"TERM": "dumb", "FORCE_COLOR": None},
    "40 columns": {"COLUMNS": "40"},
}


def works(words, folder, **changes):
    done = run(words, folder, **changes)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", HOMES)
def test_a_run_is_made_and_judged_wherever_its_user_lives(tmp_path, name):
    works(TRAIN, tmp_path, **HOMES[name])
    works([CONVATLAS, "eval", "run", "--split", "test"], tmp_path, **HOMES[name])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    works(TRAIN, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TERMINALS)
def test_everything_is_said_on_any_terminal(trained, name):
    for words in (["eval", "run", "--split", "test"], ["list"], ["show", "resnet.pocket"]):
        works([CONVATLAS, *words], trained, **TERMINALS[name])


@pytest.mark.slow
def test_few_open_files_will_do(tmp_path):
    root = picture_folder(tmp_path / "pictures", each=40)
    words = [*TRAIN[:3], "--data", "folder", "--data-root", root, "--epochs", "1", "--image-size", "32", "--out", "run"]
    done = run(words, tmp_path, before=["/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.slow
def test_a_full_disk_is_said_with_the_bytes_needed_and_the_run_goes_on_later(tmp_path):
    """A limit on the size of files, which the first state exceeds."""
    limited = run(TRAIN, tmp_path, before=["/bin/sh", "-c", 'ulimit -f 64; exec "$@"', "sh"])
    assert limited.returncode == 2, limited.stderr.decode()
    (line,) = [each for each in limited.stderr.decode().splitlines() if each.startswith("error: ")]
    assert "the disk is full: run/state-1.pt could not be written (" in line and "bytes needed" in line
    assert not list((tmp_path / "run").glob(".*.tmp"))
    resumed = run([CONVATLAS, "train", "--resume", "run"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr.decode()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_clock_that_jumps_changes_no_duration(tmp_path):
    done = run(TRAIN, tmp_path, before=["faketime", "-f", "+1y x5000"])
    assert done.returncode == 0, done.stderr.decode()


def test_a_clock_that_jumps_back_does_not_reach_training(tmp_path, monkeypatch):
    """Durations are by the monotonic clock: whoever asks for the time of day while training is found out."""
    import time

    from convatlas.training.loop import train
    from tests.training.makers import small_data, small_recipe

    jumps = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    summary = train(small_recipe(epochs=1), tmp_path / "run", data=small_data())
    assert 0 < summary.train_seconds < 100


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or shutil.which("unshare") is None, reason="needs unshare")
def test_nothing_needs_a_network(tmp_path):
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    for words in (TRAIN, [CONVATLAS, "eval", "run", "--split", "test"], [CONVATLAS, "weights"], [CONVATLAS, "data"]):
        done = run(words, tmp_path, before=["unshare", "-rn"])
        assert done.returncode == 0, done.stderr.decode()
    asked = run([CONVATLAS, "weights", "resnet18", "--download"], tmp_path, before=["unshare", "-rn"])
    assert asked.returncode == 2
    assert b"could not be fetched" in asked.stderr and b"Traceback" not in asked.stderr
