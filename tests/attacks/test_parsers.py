"""Every reader takes any bytes, or sound ones that were changed: it reads them, or refuses them in one line. `make fuzz` goes on."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "fuzz"))
from targets import TARGETS, admitted

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
WORDS = (b"NaN", b"null", b"-1", b"1e999", b"[]", b"{}", b'"', b"\n", b"\r\n", b"\0", b"\xff", b"../", b"\xe2\x80\xae", b"9" * 40)


@st.composite
def changed(draw, seeds):
    """A sound input, some of it replaced, removed, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        upto = min(len(data), at + draw(st.integers(0, 8)))
        what = draw(st.sampled_from(["flip", "replace", "remove", "double", "cut"]))
        if what == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "replace":
            data[at:upto] = draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=8)))
        elif what == "remove":
            del data[at:upto]
        elif what == "double":
            data[at:at] = data[at:upto]
        elif what == "cut":
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_sound_input_is_taken(name):
    taken = [admitted(TARGETS[name], seed) for seed in TARGETS[name].seeds]
    assert any(taken), "the fuzzers would begin outside of the format"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name):
    @MANY
    @given(st.binary(max_size=2000))
    def check(data):
        admitted(TARGETS[name], data)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_sound_input_that_was_changed(name):
    @MANY
    @given(changed(TARGETS[name].seeds))
    def check(data):
        admitted(TARGETS[name], data)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_kept_is_read_or_refused(name):
    """The inputs with which `make fuzz` once reached new code."""
    kept = sorted((CORPUS / name.replace(" ", "-")).iterdir())
    assert kept
    for path in kept:
        admitted(TARGETS[name], path.read_bytes())
