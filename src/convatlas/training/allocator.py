"""The memory allocator of this process: keeping between steps what a step gave back. No torch here: it comes before torch.

glibc returns large blocks to the system as soon as they are freed, and asks for them again at the next step; the system then
gives out pages one by one, zeroed. In training, where each step wants the same blocks, this costs up to a third of the time
(docs/LOG.md). Settings (mallopt(3)) let glibc keep them, and join neighbours when they are freed: torch asks for aligned blocks,
and what is cut off before them would otherwise lie about as small pieces that keep large blocks apart. The settings hold for
the whole process and cannot be read back, so it is the command line, which owns its process, that makes them; as a library
ConvAtlas leaves the caller's process alone.
"""

import ctypes
import platform
from pathlib import Path

from convatlas.records.engine import Reason

M_MXFAST = 1
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3
NEVER = 2**31 - 1
TOP_PAD = 256 * 2**20
"""Bytes asked for at once when the heap must grow."""
GLIBCS_OWN = 128 * 2**10
"""Bytes: what glibc begins with, for all three settings."""
KEEPING = ("tcmalloc", "jemalloc", "mimalloc")
"""Allocators that keep memory by themselves, where a user has preloaded one."""

_state = {"kept": False}


def keep_memory() -> bool:
    """Let glibc keep freed memory for the next step. Best called before torch is imported. Returns whether it could be done."""
    if platform.libc_ver()[0] != "glibc" or preloaded() is not None:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_THRESHOLD, NEVER), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD), (M_MXFAST, 0))
    done = [mallopt(setting, value) == 1 for setting, value in settings]
    _state["kept"] = all(done)
    return _state["kept"]


def give_back() -> None:
    """Undo `keep_memory` where memory is short, and return to the system what can be: it may be wanted for something else."""
    if not _state["kept"]:
        return
    libc = ctypes.CDLL(None)
    for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD):
        libc.mallopt(setting, GLIBCS_OWN)
    libc.malloc_trim(0)
    _state["kept"] = False


def preloaded() -> str | None:
    """The allocator that replaces the system's in this process, by name; None if none does, or the system does not tell."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return next((name for name in KEEPING if name in maps), None)


def allocator() -> Reason:
    """What this process's allocator does with memory that a step gave back."""
    other = preloaded()
    if other is not None:
        return Reason("allocator", other, "it is preloaded")
    if _state["kept"]:
        return Reason("allocator", "glibc, keeping", "large blocks are kept from step to step")
    if platform.libc_ver()[0] != "glibc":
        return Reason("allocator", "the system's", "only glibc has the settings")
    return Reason("allocator", "glibc, as it is", "it was not asked to keep memory")
