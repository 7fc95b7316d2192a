"""Pickles of dicts, lists, numbers, byte strings and arrays of bytes, as CIFAR comes in them.

A pickle can run any code when it is read. The unpickler here admits only stand-ins of our own, in plain Python: nothing that a
file says reaches numpy's own way of restoring arrays and dtypes, which trusts flags and sizes that it is given.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

_MOST_DIMENSIONS = 8


class NotAdmitted(Exception):
    """The pickle asks for something that an array of pixels does not need."""


class ByteArray:
    """Stands for an array: empty, until the pickle gives it its shape and bytes. `values` (any shape, uint8) is our own copy."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray[Any, np.dtype[np.uint8]] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        if type(kind) is not _ByteType or type(content) is not bytes:
            raise NotAdmitted("its array holds no bytes")
        if type(shape) is not tuple or len(shape) > _MOST_DIMENSIONS or math.prod(map(_size, shape)) != len(content):
            raise ValueError("the array's shape is not that of its bytes")
        self.values = np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if is_fortran else "C").copy()


def _size(size: Any) -> int:
    """As a file gives it, if it is one."""
    if type(size) is not int or not 0 <= size < 2**32:
        raise ValueError("a size that is none")
    return size


class _ByteType:
    """Stands for numpy's dtype of unsigned bytes, and takes no other state than that one's."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if state not in ((3, b"|", None, None, None, -1, -1, 0), (3, "|", None, None, None, -1, -1, 0)):
            raise NotAdmitted("its bytes are more than bytes")


class _Named:
    """Stands for a function or class that the pickle names: it can be called, but nothing can be set on it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise NotAdmitted("it changes what it calls")


def _call_array(*_: Any) -> Any:
    raise NotAdmitted("it calls numpy.ndarray")


_ARRAY = _Named(_call_array)
"""numpy's ndarray, which can be named but not called."""


def _empty_array(kind: Any, shape: Any, typecode: Any) -> ByteArray:
    """numpy's _reconstruct."""
    if kind is not _ARRAY or shape != (0,):
        raise NotAdmitted("it builds another class than an array")
    return ByteArray()


def _dtype(name: Any, *_: Any) -> _ByteType:
    """numpy's dtype, of bytes only: one of Python objects could smuggle anything in."""
    if name not in (b"u1", "u1"):
        raise NotAdmitted(f"it holds {name!r} and not bytes")
    return _ByteType()


def _latin1(text: Any, encoding: Any) -> bytes:
    """_codecs.encode, by which Python 3 writes bytes at pickle protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise NotAdmitted("it calls a codec")
    return text.encode("latin1")


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Named(_empty_array),
    ("numpy._core.multiarray", "_reconstruct"): _Named(_empty_array),
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _Named(_dtype),
    ("_codecs", "encode"): _Named(_latin1),
}


class _Unpickler(pickle.Unpickler):
    """Everything that is not admitted raises."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for one of the few names that such a pickle may use."""
        if (module, name) not in _ADMITTED:
            raise NotAdmitted(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuses objects kept outside the file."""
        raise NotAdmitted("it asks for an object outside the file")


def _check_memo(content: bytes) -> None:
    """Refuse a pickle that numbers what it remembers beyond its own length: the unpickler would make room for so many."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument >= len(content):
            raise NotAdmitted(f"it remembers {argument:,} things")


def read_pickle(content: bytes) -> Any:
    """What the pickle holds, its arrays as `ByteArray`. Raises `NotAdmitted`, and of a damaged one nearly anything."""
    _check_memo(content)
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()
