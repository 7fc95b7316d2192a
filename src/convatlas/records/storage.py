"""Writing files so that a reader sees the old content or the new, never half of either. All that is kept goes through here."""

import errno
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from convatlas.errors import StorageError, UserError

# Windows has no fcntl.
fcntl: ModuleType | None = importlib.import_module("fcntl") if os.name == "posix" else None


def new_folder(path: Path) -> Path:
    """Make the folder `path`. One that exists already is refused, since a run is never written over."""
    with explained(path):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                f"{path} exists already, and nothing is ever overwritten", fix="Name another folder with --out, or remove it."
            ) from None
        except NotADirectoryError:
            raise UserError(f"{path} lies below a file, not a folder", fix="Name another folder with --out.") from None
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically and durably: temporary file beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically and durably."""
    write_bytes(path, text.encode("utf-8"))


def append_line(path: Path, line: str) -> None:
    """Append one line durably. A torn last line, left by a crash, is cut off first."""
    assert line.endswith("\n")
    with explained(path), path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(line.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder` alone while the block runs; whoever comes second is refused with the first one's process number.

    The kernel drops the lock with its holder, however that dies, so none is ever left behind. Without `fcntl` (Windows)
    nothing is held.
    """
    if fcntl is None:
        yield
        return
    with explained(folder):
        lock = (folder / ".lock").open("a+")
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(f"{folder} is in use by process {holder}", fix="Wait for it to end, or stop it.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write at `path` into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"the disk is full: {path} could not be written", fix="Make room, then go on; what was there before is intact."
            ) from error
        raise StorageError(f"{path} could not be written: {error.strerror}", fix="Name a folder that can be written.") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows cannot open folders, and its renames need no such step."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
