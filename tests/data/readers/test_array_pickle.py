"""Arrays of bytes from pickles that are sound, and none from those that are not: nothing they say reaches numpy's own restoring."""

import pickle
import pickletools

import numpy as np
import pytest
import torch

from convatlas.data.readers import array_pickle
from convatlas.data.readers.array_pickle import ByteArray, NotAdmitted, read_pickle

BYTES = np.arange(24, dtype=np.uint8).reshape(4, 6)
CONTENT = BYTES.tobytes()
STATE = (3, "|", None, None, None, -1, -1, 0)
NAMES = [("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]


class Built:
    """Pickles as a call, of whose result the pickle then sets the state."""

    def __init__(self, call, arguments, state):
        self.made = (call, arguments, state)

    def __reduce__(self):
        return self.made


def pickled(*, dtype=("u1", False, True), dtype_state=STATE, shape=(4, 6), order=False, content=CONTENT):
    kind = Built(np.dtype, dtype, dtype_state)
    array = Built(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, kind, order, content))
    return pickle.dumps(array, protocol=3)


@pytest.mark.parametrize("array", [BYTES, np.asfortranarray(BYTES), BYTES.reshape(2, 2, 6), BYTES[::2, ::3]])
@pytest.mark.parametrize("protocol", range(4))
def test_arrays_come_as_they_were(array, protocol):
    found = read_pickle(pickle.dumps({"data": array, "more": [1, b"two", array]}, protocol=protocol))
    for values in (found["data"].values, found["more"][2].values):
        assert values.dtype == np.uint8
        assert np.array_equal(values, array)
    torch.from_numpy(found["data"].values).add_(1)  # which warns of arrays that cannot be written


def test_what_numpy_2_0_and_its_forerunners_wrote():
    ours = pickled()
    assert b"numpy._core.multiarray" in ours
    assert np.array_equal(read_pickle(ours.replace(b"numpy._core.", b"numpy.core.")).values, BYTES)


@pytest.mark.parametrize("at", range(len(STATE)))
def test_bytes_are_no_more_than_bytes(at):
    """The flags of the second case made numpy take bytes for the addresses of objects."""
    for other in (1, 3, -1, 2**40, "<", ("a",), {"a": (np.dtype("u1"), 0)}, (np.dtype("u1"), (1000,))):
        state = (*STATE[:at], other, *STATE[at + 1 :])
        if state == STATE or (at == 0 and other == 3):
            continue
        with pytest.raises(NotAdmitted, match="its bytes are more than bytes"):
            read_pickle(pickled(dtype_state=state))


@pytest.mark.parametrize(
    "settings",
    [
        {"shape": (4, 7)},
        {"shape": (-4, -6)},
        {"shape": (4.0, 6)},
        {"shape": (True, 24)},
        {"shape": [4, 6]},
        {"shape": "46"},
        {"shape": (1,) * 9 + (24,)},
        {"shape": (2**40, 0), "content": b""},
        {"shape": (0, 2**64), "content": b""},
    ],
)
def test_a_shape_that_is_not_that_of_the_bytes(settings):
    with pytest.raises(ValueError, match="shape|size"):
        read_pickle(pickled(**settings))


@pytest.mark.parametrize("content", [list(range(24)), "x" * 24, 24, None])
def test_an_array_of_anything_else(content):
    with pytest.raises(NotAdmitted, match="holds no bytes"):
        read_pickle(pickled(content=content))


def test_an_array_of_another_kind():
    array = Built(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (4, 6), "u1", False, CONTENT))
    with pytest.raises(NotAdmitted, match="holds no bytes"):
        read_pickle(pickle.dumps(array, protocol=2))


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_nothing_can_be_set_on_what_is_named(module, name):
    """Neither by a dict, nor by the pair whose second half pickle sets attribute by attribute."""
    for state in ({"__doc__": "changed"}, (None, {"__call__": 1, "_call": 1})):
        named = b"\x80\x02c" + f"{module}\n{name}\n".encode()
        content = named + pickle.dumps(state, protocol=2)[2:-1] + b"b."
        assert [opcode.name for opcode, _, _ in pickletools.genops(content)][-2:] == ["BUILD", "STOP"]
        with pytest.raises(NotAdmitted, match="changes what it calls"):
            read_pickle(content)
    assert np.array_equal(read_pickle(pickled()).values, BYTES)


def test_what_stands_in_for_numpy_is_ours():
    """Restoring by numpy's own functions trusts what the file says."""
    for stand_in in array_pickle._ADMITTED.values():
        assert type(stand_in).__module__ == array_pickle.__name__
        assert not hasattr(stand_in, "__dict__")
    assert not hasattr(ByteArray(), "__dict__")
