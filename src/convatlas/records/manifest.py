"""`manifest.json`: what the files of a run folder hash to, so that a damaged one is noticed and never used."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from convatlas.errors import UserError
from convatlas.records import codec, storage

FILE = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A file in the folder: its name, its length in bytes, and its SHA-256 in hex."""

    name: str
    length: int
    sha256: str

    def fits(self, content: bytes) -> bool:
        """Whether `content` is what was written."""
        return len(content) == self.length and hashlib.sha256(content).hexdigest() == self.sha256


@dataclass(frozen=True)
class Manifest:
    """The files that count, and the SHA-256 of that list, since the manifest can be damaged too."""

    files: tuple[Entry, ...]
    sha256: str

    def entry(self, name: str) -> Entry | None:
        """What is said of the file called `name`, if anything."""
        return next((each for each in self.files if each.name == name), None)


def entry_of(name: str, content: bytes) -> Entry:
    """The entry for a file with this content."""
    return Entry(name, len(content), hashlib.sha256(content).hexdigest())


def read(folder: Path) -> Manifest | None:
    """The manifest of a run folder; None if it has none, as those of earlier versions. UserError if it is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    manifest = codec.read(Manifest, path)
    if manifest.sha256 != _seal(manifest.files):
        raise UserError(f"{path} is damaged: its SHA-256 is another", fix="Put back a copy of it.")
    return manifest


def write(folder: Path, *added: Entry, without: tuple[str, ...] = ()) -> None:
    """Add entries to the manifest, in place of those of the same names, and drop those of the names in `without`.

    Once this returns, the files are acknowledged. What a damaged manifest said is not taken over.
    """
    try:
        before = read(folder)
    except UserError:
        before = None
    dropped = {*without, *(each.name for each in added)}
    kept = () if before is None else tuple(each for each in before.files if each.name not in dropped)
    files = (*kept, *added)
    storage.write_text(folder / FILE, codec.to_text(Manifest(files, _seal(files))))


def checked(path: Path) -> bytes:
    """The content of a file of a run folder, which is what was written there. Raises UserError if it is not, or is not there."""
    manifest = read(path.parent)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", fix="Check the folder.") from None
    entry = None if manifest is None else manifest.entry(path.name)
    if entry is not None and not entry.fits(content):
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in {FILE}", fix="Put back a copy of it, or train anew.")
    return content


def _seal(files: tuple[Entry, ...]) -> str:
    return hashlib.sha256(codec.to_line(files).encode()).hexdigest()
