"""Fetching published files: several mirrors, resumed where cut off, checked before they count."""

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Sequence
from email.message import Message
from pathlib import Path
from typing import IO

from convatlas.data.catalog import CATALOG
from convatlas.data.checksums import md5_of
from convatlas.errors import UserError

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30
_HTTPS = frozenset({"https"})


class _Refused(Exception):
    """This mirror will not do; the text says why."""


class _CutOff(Exception):
    """The connection ended early; what came is kept, and asking again may help."""


def download_entry(name: str, folder: Path, *, progress: Callable[[str, int, int], None] | None) -> None:
    """Fetches the files of the catalogue's `name` that `folder` lacks. Raises UserError."""
    for item in CATALOG[name].downloads:
        if not (folder / item.file).is_file():
            download(item.urls, folder / item.file, md5=item.md5, size=item.size, progress=progress)


def download(
    urls: Sequence[str],
    target: Path,
    *,
    md5: str,
    size: int,
    progress: Callable[[str, int, int], None] | None = None,
    schemes: Collection[str] = _HTTPS,
) -> None:
    """Fetches one file of `size` bytes and checksum `md5` to `target`, trying the `urls` in turn.

    What has come so far is kept in `target`.part and gone on with, now or at the next call. The target appears only
    when its checksum is right. `progress(file name, bytes done, bytes in all)`. Raises UserError when no mirror has it.
    """
    part = target.with_name(target.name + ".part")
    report = (lambda done: progress(target.name, done, size)) if progress is not None else (lambda done: None)
    reasons = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            try:
                _fetch_whole(url, part, size=size, report=report, schemes=schemes)
                _accept(part, target, md5=md5)
                return
            except _Refused as reason:
                reasons.append(f"{url} {reason}")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}", fix="Make room there.") from None
    raise UserError(
        f"{target.name} could not be fetched ({'; '.join(reasons)})",
        fix=f"Try again later to go on where it stopped, or put the file at {target} by hand.",
    )


def _fetch_whole(url: str, part: Path, *, size: int, report: Callable[[int], None], schemes: Collection[str]) -> None:
    """Asks `url` again and again for what is missing, as long as each answer brings something."""
    while _length(part) < size:
        before = _length(part)
        try:
            _fetch_rest(url, part, size=size, report=report, schemes=schemes)
        except _CutOff as cut:
            if _length(part) <= before:
                raise _Refused(str(cut)) from None
    if _length(part) > size:
        part.unlink()
        raise _Refused("sent more than the file has")


def _fetch_rest(url: str, part: Path, *, size: int, report: Callable[[int], None], schemes: Collection[str]) -> None:
    """One request for the bytes from the end of `part` on; begins anew where the server does not know ranges."""
    have = _length(part)
    with _open(url, have, schemes) as answer:
        begins_at = _first_byte(answer, have, size)
        with part.open("ab" if begins_at else "wb") as file:
            done = begins_at
            while done <= size and (chunk := _receive(answer)):
                file.write(chunk)
                done += len(chunk)
                report(min(done, size))
    if done < size:
        raise _CutOff(f"stopped after {done:,} of {size:,} bytes")


def _open(url: str, have: int, schemes: Collection[str]) -> http.client.HTTPResponse:
    if url.partition(":")[0] not in schemes:
        raise _Refused(f"is not {' or '.join(schemes)}")
    headers = {"User-Agent": "convatlas", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.build_opener(_SameSchemes(schemes))
    try:
        answer: http.client.HTTPResponse = opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise _Refused(f"answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Refused(f"cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Refused(f"cannot be reached: {error}") from None
    return answer


def _first_byte(answer: http.client.HTTPResponse, have: int, size: int) -> int:
    """At which byte of the file the answer's body begins: `have`, or 0 where the server sends all of it again."""
    if "html" in answer.headers.get("Content-Type", ""):
        raise _Refused("answered with a web page")
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if place is None or int(place[1]) != have or place[2] not in ("*", str(size)):
            raise _Refused("answered with another part than asked for")
        return have
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(size):
        raise _Refused(f"has a file of {length} bytes instead of {size}")
    return 0


def _receive(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        # A connection that breaks within a chunk; the file shows how much came.
        raise _CutOff(f"broke off: {type(error).__name__}") from None


def _accept(part: Path, target: Path, *, md5: str) -> None:
    found = md5_of(part.read_bytes())
    if found != md5:
        part.unlink()
        raise _Refused(f"has other content (md5 {found}, not {md5})")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _length(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to the schemes that were allowed to begin with."""

    def __init__(self, schemes: Collection[str]) -> None:
        self._schemes = schemes

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The request to follow, or an error if it leaves the allowed schemes."""
        if newurl.partition(":")[0] not in self._schemes:
            fp.close()
            raise urllib.error.URLError(f"it redirects to {newurl.partition(':')[0]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
