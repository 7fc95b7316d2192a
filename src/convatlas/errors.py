"""The errors meant for users: one line that says what is wrong, and what to do about it."""

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any


class UserError(Exception):
    """Something a user can mend. The faces print it in one line and exit with code 2; nothing is lost.

    `what` says what is wrong, where and why; `fix` says what to do.
    """

    def __init__(self, what: str, *, fix: str) -> None:
        what, fix = _one_line(what), _one_line(fix)
        super().__init__(f"{what}. {fix}" if not what.endswith((".", "?", "!")) else f"{what} {fix}")
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it comes out of a worker process whole."""
        return partial(type(self), fix=self.fix), (self.what,)


def _one_line(text: str) -> str:
    """The text with line breaks and terminal escapes spelled out: names of files and tensors may hold any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What an error of somebody's code says, in one line: its first, or the name of its class."""
    return str(error).strip().split("\n")[0] or type(error).__name__


class InUseError(UserError):
    """Another process works in the folder. Nothing is wrong with what is to be done there: it may be done already, or later."""


class StorageError(UserError):
    """A file could not be written. Nothing is wrong with the run that wanted it: it goes on once there is room."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str) -> UserError:
    """The error for a name that is not among the known ones: suggests the nearest, and says where all of them are listed.

    `kind` is what is named ("model", "data set"); `where` is the command or place that lists the known names.
    """
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    guess = f"Did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"there is no {kind} called {name!r}", fix=f"{guess}{where}")
