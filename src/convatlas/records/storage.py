"""Writing files so that a reader sees the old content or the new, never half of either. All that is kept goes through here.

What a power cut leaves of it: a file's content is safe once it is synchronised, a new name once its folder is. So a file is
written under a temporary name, synchronised, renamed, and its folder synchronised; only then may what it replaces be removed
(Pillai et al. 2014, "All File Systems Are Not Created Equal", OSDI, has what file systems do otherwise).
"""

import errno
import importlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from types import ModuleType

from convatlas.errors import InUseError, StorageError, UserError

POSIX = os.name == "posix"
# Windows has no fcntl.
fcntl: ModuleType | None = importlib.import_module("fcntl") if POSIX else None


class Disk:
    """What is asked of the file system, one operation a method. Tests put another in its place to cut the power in between."""

    def write(self, path: Path, content: bytes) -> None:
        """Make the file `path`, or empty it, and fill it; a power cut may leave any part of it."""
        path.write_bytes(content)

    def append(self, path: Path, whole: int, content: bytes) -> None:
        """Cut the file `path`, made if need be, to its first `whole` bytes, add `content` and synchronise it."""
        with path.open("a+b") as file:
            file.truncate(whole)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def sync(self, path: Path) -> None:
        """Make the content of the file `path`, or the names in the folder `path`, outlive a power cut."""
        if not POSIX and path.is_dir():
            return  # Windows cannot open folders, and its renames need no such step.
        descriptor = os.open(path, os.O_RDONLY if POSIX else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, path: Path, new: Path) -> None:
        """Give the file `path` the name `new`, in place of what has it."""
        path.replace(new)

    def remove(self, path: Path) -> None:
        """Remove the file `path`, if it is there."""
        path.unlink(missing_ok=True)


DISK = Disk()
LOCK = ".lock"


def new_folder(path: Path) -> Path:
    """Make the folder `path`, and those above it, durably. One that exists is refused, since a run is never written over."""
    with explained(path):
        absent = [each for each in (path, *path.parents) if not each.exists()]
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(f"{path} exists already, and nothing is ever overwritten", fix="Name another with --out.") from None
        except NotADirectoryError:
            raise UserError(f"{path} lies below a file, not a folder", fix="Name another folder with --out.") from None
        for each in absent:
            with suppress(PermissionError):  # a folder may be written to that may not be read
                DISK.sync(each.parent)
    return path


@contextmanager
def beginning(path: Path) -> Iterator[None]:
    """Make the folder `path` and let the block write what it must begin with; if that fails, nothing of it stays."""
    new_folder(path)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        raise


def clear_unbegun(path: Path) -> None:
    """Take away the run folder `path` if a crash broke off before its `recipe.json` was there, and nothing else is in it.

    For those who hold the folder above it: beside others, who may just be beginning it, that would not be safe.
    """
    if not path.is_dir() or (path / "recipe.json").exists():
        return
    sweep(path)
    with suppress(OSError):  # what else is there is not ours, and refused when the run begins
        for name in (LOCK, "split.json"):
            remove(path / name)
        path.rmdir()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically and durably: temporary file beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path, needed=len(content)):
        try:
            DISK.write(temporary, content)
            DISK.sync(temporary)
            DISK.rename(temporary, path)
        except BaseException:
            DISK.remove(temporary)
            raise
        DISK.sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically and durably."""
    write_bytes(path, text.encode("utf-8"))


def append_line(path: Path, line: str) -> None:
    """Append one line durably. A torn last line, left by a crash, is cut off first."""
    assert line.endswith("\n")
    with explained(path, needed=len(line)):
        new = not path.exists()
        whole = 0 if new else path.read_bytes().rfind(b"\n") + 1
        try:
            DISK.append(path, whole, line.encode("utf-8"))
        except BaseException:
            if new:
                DISK.remove(path)
            raise
        if new:
            DISK.sync(path.parent)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what writes that a crash broke off have left in `folder`, or of the file `name` there; call it while holding it."""
    for path in folder.glob(".*.tmp" if name is None else f".{escape(name)}.*.tmp"):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file that is needed no more; whether that outlives a power cut does not matter."""
    with explained(path):
        DISK.remove(path)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder` alone while the block runs; whoever comes second is refused at once, and told who holds it.

    The kernel drops the lock with its holder, however that dies, so none is ever left behind. Without `fcntl` (Windows)
    nothing is held.
    """
    if fcntl is None:
        yield
        return
    with explained(folder):
        lock = (folder / LOCK).open("ab", buffering=0)
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"{folder} is in use by {_holder(folder)}", fix="Wait for it to end, or stop it.") from None
        with suppress(OSError):  # on a full disk it is held all the same
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}).encode())
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)  # a folder that is passed on does not say where it was made


def is_held(folder: Path) -> bool:
    """Whether a process holds `folder` at this moment."""
    if not (folder / LOCK).exists():
        return False
    try:
        with held(folder):
            return False
    except InUseError:
        return True


def _holder(folder: Path) -> str:
    """Who holds the folder, as it wrote itself; it may not have come to it yet."""
    try:
        holder = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {str(holder['host'])[:64]!r} since {str(holder['since'])[:32]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@contextmanager
def explained(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn the operating system's refusal to write at `path` into a UserError; `needed` bytes were to be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            room = "" if needed is None else f" ({needed:,} bytes needed)"
            raise StorageError(
                f"the disk is full: {path} could not be written{room}",
                fix="Make room, then go on; what was there before is intact.",
            ) from error
        raise StorageError(f"{path} could not be written: {error.strerror}", fix="Name a folder that can be written.") from error
