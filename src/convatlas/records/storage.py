"""Writing files so that a reader sees the old content or the new, never half of either. All that is kept goes through here."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convatlas.errors import StorageError, UserError


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
