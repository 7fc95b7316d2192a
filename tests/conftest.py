"""What all tests share: one torch thread each, and no trace of them outside their temporary folders."""

import gc
import os
import posix
import sys

import coverage
import pytest
import torch
from hypothesis import settings

# How long an example may take says how busy the machine is, and not whether it is right.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

COUNTING = "COVERAGE_PROCESS_CONFIG"
"""With this variable a process counts the lines that it reaches (coverage.py, `patch = subprocess`)."""


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The tests run side by side; threads of torch's own would fight over the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def forks_write_their_own_lines():
    """A forked process writes the lines that it has reached, not once more all that its parent had before; untraced, it counts none."""
    os.register_at_fork(after_in_child=_forked)


def _forked():
    counter = coverage.Coverage.current()
    if counter is None:
        return
    if COUNTING in os.environ:
        os._exit = lambda status: (counter.save(), posix._exit(status))
    else:
        counter.stop()
        os._exit = posix._exit


def pytest_collection_finish():
    """Thousands of tests and all that they import are there to the end: collecting garbage need not look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The user's caches are neither read nor written: ours, torch's, and the Hugging Face hub's, which is fixed on import."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache" / "huggingface" / "hub"))
    for name in ("CONVATLAS_DATA", "TORCH_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    """Nobody counts the lines that a test reaches which is marked as untraced; pytest-cov's no_cover does not hold in workers.

    Nor are those counted which the processes reach that it starts: without coverage's variable they are begun without coverage.
    """
    if item.get_closest_marker("untraced") is None:
        return (yield)
    tracer, counting = sys.gettrace(), os.environ.pop(COUNTING, None)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
        if counting is not None:
            os.environ[COUNTING] = counting
