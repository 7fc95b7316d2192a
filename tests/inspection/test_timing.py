"""Timing in turns."""

import time

import pytest
import torch

from convatlas.inspection.timing import ratio, timed


def test_turns_and_ratio():
    calls = []

    def taking(name, seconds):
        def act():
            calls.append(name)
            time.sleep(seconds)

        return act

    told = []
    found = timed({"slow": taking("s", 0.006), "quick": taking("q", 0.002)}, seconds=0.05, least=5, tick=told.append)
    assert calls[:6] == ["s", "q", "s", "q", "s", "q"], "in turns"
    n = found["slow"].n
    assert n == found["quick"].n == len(calls) // 2 - 1 >= 5, "the first round is not counted"
    assert found["slow"].threads == torch.get_num_threads()
    assert found["slow"].low <= found["slow"].median <= found["slow"].high
    middle, low, high = ratio(found["slow"], found["quick"])
    assert middle == pytest.approx(3, rel=0.6)
    assert low <= middle <= high
    assert told[-1] == 1.0
    assert told == sorted(told)
