"""Checking bytes against the catalogue."""

import hashlib

from convatlas.data.catalog import Entry
from convatlas.errors import UserError


def md5_of(content: bytes) -> str:
    """The md5 of `content`, as published beside these data sets. It guards against damage, not against an attacker."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def recognise(entry: Entry, found: dict[str, str], *, where: str) -> str:
    """The remark on the known state whose md5s are those in `found` (file -> md5).

    Raises UserError that names the first file that differs from the nearest known state.
    """
    for known in entry.known:
        if known.md5 == found:
            return known.remark
    nearest = max(entry.known, key=lambda known: sum(found[name] == md5 for name, md5 in known.md5.items()))
    wrong = next(name for name, md5 in nearest.md5.items() if found[name] != md5)
    raise wrong_checksum(f"{wrong} in {where}", found=found[wrong], expected=nearest.md5[wrong])


def wrong_checksum(what: str, *, found: str, expected: str) -> UserError:
    """The error for content that is not what was published."""
    return UserError(
        f"{what} is not as published, a wrong checksum: its md5 is {found}, not {expected}",
        fix="Fetch it again; if the file is meant to differ, --no-verify reads it all the same.",
    )
