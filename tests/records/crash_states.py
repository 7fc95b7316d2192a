"""All that a power cut may leave of a series of file operations, as POSIX allows it, in memory.

A file's content is sure once the file was synchronised; before, it may be there, in part, or not at all. A name is sure once its
folder was synchronised; before, any of the changes since may have been kept and any lost, each rename whole or not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from convatlas.records.storage import Disk


class Recorder(Disk):
    """The real disk, which keeps a log of what it was asked to do; `lazy` operations are done but not logged, as if left out."""

    def __init__(self, *, lazy=()):
        self.log = []
        self.lazy = lazy

    def write(self, path, content):
        super().write(path, content)
        self.log.append(("write", path.name, content))

    def append(self, path, whole, content):
        super().append(path, whole, content)
        self.log += [("write", path.name, path.read_bytes()), ("sync file", path.name)]

    def sync(self, path):
        super().sync(path)
        kind = "sync folder" if path.is_dir() else "sync file"
        if kind not in self.lazy:
            self.log.append((kind, path.name))

    def rename(self, path, new):
        super().rename(path, new)
        self.log.append(("rename", path.name, new.name))

    def remove(self, path):
        super().remove(path)
        self.log.append(("remove", path.name))

    def acknowledge(self, what):
        """What was written is said to be safe."""
        self.log.append(("acknowledged", what))


FREE = 6
"""Of the changes of names that are not sure so many, the newest, may each have been kept or lost; all are tried. Older ones were
kept, so that series that never synchronise a folder can be judged as well."""


@dataclass
class _File:
    content: bytes
    sure: bool = False


@dataclass
class _Folder:
    """One folder: which name is which file now, which names are sure, and the changes of names that are not."""

    files: list[_File] = field(default_factory=list)
    now: dict[str, int] = field(default_factory=dict)
    sure: dict[str, int] = field(default_factory=dict)
    unsure: list[tuple] = field(default_factory=list)

    def do(self, operation):
        kind, *words = operation
        if kind == "write":
            self._write(*words)
        elif kind == "sync file":
            self.files[self.now[words[0]]].sure = True
        elif kind == "sync folder":
            self.sure, self.unsure = dict(self.now), []
        elif kind == "rename" or (kind == "remove" and words[0] in self.now):
            change = (kind, self.now[words[0]], *words)
            self.unsure.append(change)
            _change(self.now, change)

    def _write(self, name, content):
        """A file that is written over is another one here: what it was before is not sure any more."""
        if name in self.now:
            self.files[self.now[name]] = _File(content)
            return
        self.files.append(_File(content))
        change = ("create", len(self.files) - 1, name)
        self.unsure.append(change)
        _change(self.now, change)

    def after_a_cut(self) -> Iterator[dict[str, bytes]]:
        """What may be found in the folder."""
        older, newer = self.unsure[:-FREE], self.unsure[-FREE:]
        for kept in product((False, True), repeat=len(newer)):
            names = dict(self.sure)
            for change, keep in [*((each, True) for each in older), *zip(newer, kept, strict=True)]:
                if keep:
                    _change(names, change)
            unsure = sorted({number for number in names.values() if not self.files[number].sure})
            for parts in product((0, 1, 2), repeat=len(unsure)):
                share = dict(zip(unsure, parts, strict=True))
                yield {
                    name: content[: len(content) * share.get(number, 2) // 2]
                    for name, number in names.items()
                    for content in [self.files[number].content]
                }


def _change(names, change):
    kind, number, name, *new = change
    names.pop(name, None)
    if kind != "remove":
        names[new[0] if kind == "rename" else name] = number


def crash_states(log) -> Iterator[tuple[dict[str, bytes], int]]:
    """All that may be found after a cut at any moment of the log, each once, with what was acknowledged last (0: nothing)."""
    folder, acknowledged, seen = _Folder(), 0, set()
    for operation in [("begin",), *log]:
        if operation[0] == "acknowledged":
            acknowledged = operation[1]
        else:
            folder.do(operation)
        for found in folder.after_a_cut():
            key = (acknowledged, *sorted(found.items()))
            if key not in seen:
                seen.add(key)
                yield found, acknowledged


def put(folder: Path, found: dict[str, bytes]) -> None:
    """Make `folder` hold just that."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in found.items():
        (folder / name).write_bytes(content)
