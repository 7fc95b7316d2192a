"""Memory that stays with the process while tests make one large network after another.

glibc gives large blocks back to the system at once, and gets them anew, zeroed, page by page: a quarter of the time of such tests.
"""

import ctypes
from contextlib import contextmanager
from unittest import mock

from convatlas.training import allocator


@contextmanager
def kept_memory():
    """Within the block nothing is given back; after it, all that can be, and glibc does as it does in a process that has run long."""
    with mock.patch.dict(allocator._state):
        kept = allocator.keep_memory()
        try:
            yield
        finally:
            if kept:
                libc = ctypes.CDLL(None)
                settings = (
                    (allocator.M_MMAP_THRESHOLD, 2**25),
                    (allocator.M_TRIM_THRESHOLD, 2**26),
                    (allocator.M_TOP_PAD, 2**17),
                )
                for setting, value in (*settings, (allocator.M_MXFAST, 128)):
                    libc.mallopt(setting, value)
                libc.malloc_trim(0)
