"""SIGKILL at random moments of training, saving and judging: what is resumed is the unbroken run. The long form is `make soak`."""

from collections import Counter

import pytest

from .kills import MOMENTS, soak


@pytest.mark.slow
@pytest.mark.untraced  # who is killed writes no lines down, and other tests reach those of who is not
def test_thirty_kills_change_no_bit(tmp_path):
    said = []
    done = soak(30, seed=0, place=tmp_path, say=said.append)
    assert len(done) >= 30
    assert set(Counter(moment.kind for moment in done)) == set(MOMENTS), said
