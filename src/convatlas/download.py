"""Fetching published files: several mirrors, resumed where cut off, checked before they count.

Only https, only addresses of the public internet (whatever a name resolves to, at every redirect), no more than was announced.
"""

import contextlib
import hashlib
import http.client
import ipaddress
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from convatlas.errors import UserError
from convatlas.records import storage

if TYPE_CHECKING:
    from rich.console import Console

Report = Callable[[str, int, int], None]
"""Told how far a download is: the file's name, the bytes that are here, and the bytes in all, 0 while that is unknown."""

MOST_BYTES = 4 << 30
"""The most that is fetched of a file whose size is not known beforehand."""

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30
_HTTPS = frozenset({"https"})


@dataclass(frozen=True)
class Digest:
    """What a file's content must hash to by `algorithm` ("md5" or "sha256"): the digest in hexadecimal, or its first digits.

    An md5 or a few digits guard against damage, not against an attacker.
    """

    algorithm: str
    digits: str

    def difference(self, path: Path) -> str | None:
        """How the file `path` differs, in words; None if it has this digest."""
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)).hexdigest()
        if found.startswith(self.digits):
            return None
        begins = "" if len(self.digits) == len(found) else " begins with"
        return f"{self.algorithm}{begins} {found[: len(self.digits)]}, not {self.digits}"


class _Refused(Exception):
    """This mirror will not do; the text says why."""


class _CutOff(Exception):
    """The connection ended early; what came is kept, and asking again may help."""


class _NothingLeft(Exception):
    """The server has no more of the file than is here."""


@dataclass(frozen=True)
class _Order:
    """What all requests for one file share. `size` in bytes, None if unknown; what has come so far is in `part`."""

    target: Path
    part: Path
    size: int | None
    digest: Digest
    progress: Report | None
    schemes: Collection[str]


def download(
    urls: Sequence[str],
    target: Path,
    *,
    digest: Digest,
    size: int | None,
    progress: Report | None = None,
    schemes: Collection[str] = _HTTPS,
) -> None:
    """Fetches one file of `size` bytes (None: as many as the server says) to `target`, trying the `urls` in turn.

    What has come so far is kept in `target`.part and gone on with, now or at the next call. The target appears, or is
    replaced, only when the content has the `digest`; if it is there and has it, nothing is fetched. Of two processes that want
    the same file, the second waits for the first. Raises UserError when no mirror has it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _held(target.with_name(target.name + ".part")) as part:
            if target.is_file() and digest.difference(target) is None:
                return
            reasons = _try_each(urls, _Order(target, part, size, digest, progress, schemes))
    except OSError as error:
        what = f"{target} cannot be written: {error.strerror or error}"
        raise UserError(what, fix="Make room there, or make it writable.") from None
    if reasons:
        raise UserError(
            f"{target.name} could not be fetched ({'; '.join(reasons)})",
            fix=f"Try again later to go on where it stopped, or put the file at {target} by hand.",
        )


@contextlib.contextmanager
def download_bar(console: "Console | None" = None) -> Iterator[Report]:
    """A bar that moves while a file comes, on `console` or else on standard error."""
    # Imported here: most of what imports this module fetches nothing.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True)) as bars:
        task = bars.add_task("connecting", total=None)
        yield lambda what, done, total: bars.update(task, description=what, completed=done, total=total or None)


@contextlib.contextmanager
def _held(part: Path) -> Iterator[Path]:
    """Holds the file `part` while the block runs, after waiting for whoever holds it. It does not stay behind empty.

    Windows and some network file systems know no such locks: nothing is held there.
    """
    if storage.fcntl is None:
        yield part
        return
    with _locked(part, storage.fcntl) as file:
        try:
            yield part
        finally:
            if _is_at(part, file) and _length(part) == 0:
                part.unlink()


def _locked(part: Path, fcntl: ModuleType) -> IO[bytes]:
    while True:
        file = part.open("ab")
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(part, file):
            return file
        # Whoever held it has put it in place or removed it.
        file.close()


def _is_at(path: Path, file: IO[bytes]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _try_each(urls: Sequence[str], order: _Order) -> list[str]:
    """Puts the file in place from the first of the `urls` that has it. Returns why all would not do, or nothing."""
    reasons = []
    for url in urls:
        try:
            _fetch_right(url, order)
            _put_in_place(order.part, order.target)
            return []
        except _Refused as reason:
            reasons.append(f"{url} {' '.join(str(reason).split())}")
    return reasons


def _fetch_right(url: str, order: _Order) -> None:
    """Fetches the whole file from `url` and checks it. Raises _Refused."""
    if order.size is not None and _length(order.part) > order.size:
        _empty(order.part)
    resumed = _length(order.part) > 0
    _fetch_whole(url, order)
    difference = order.digest.difference(order.part)
    if difference is not None and resumed:
        # What was there before may have been another file's.
        _empty(order.part)
        _fetch_whole(url, order)
        difference = order.digest.difference(order.part)
    if difference is not None:
        _empty(order.part)
        raise _Refused(f"has other content ({difference})")


def _fetch_whole(url: str, order: _Order) -> None:
    """Asks `url` again and again for what is missing, as long as each answer brings something."""
    size = order.size
    while size is None or _length(order.part) < size:
        before = _length(order.part)
        try:
            size = _fetch_rest(url, order)
        except _NothingLeft:
            return
        except _CutOff as cut:
            if _length(order.part) <= before:
                raise _Refused(str(cut)) from None
    if _length(order.part) > size:
        _empty(order.part)
        raise _Refused("sent more than the file has")


def _fetch_rest(url: str, order: _Order) -> int:
    """One request for the bytes from the end of the part on; begins anew where the server does not know ranges.

    Returns the size of the file in bytes.
    """
    have = _length(order.part)
    with _open(url, have, order.schemes) as answer:
        begins_at, size = _place(answer, have, order.size)
        most = MOST_BYTES if size is None else size
        done = begins_at
        with order.part.open("ab" if begins_at else "wb") as file:
            while done <= most and (chunk := _receive(answer)):
                file.write(chunk)
                done += len(chunk)
                if order.progress is not None:
                    order.progress(order.target.name, min(done, most), size or 0)
    if size is not None and done < size:
        raise _CutOff(f"stopped after {done:,} of {size:,} bytes")
    return min(done, most)


def _open(url: str, have: int, schemes: Collection[str]) -> http.client.HTTPResponse:
    if url.partition(":")[0] not in schemes:
        raise _Refused(f"is not {' or '.join(schemes)}")
    headers = {"User-Agent": "convatlas", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.build_opener(_SameSchemes(schemes), _PublicHTTPS())
    try:
        answer: http.client.HTTPResponse = opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _NothingLeft from None
        raise _Refused(f"answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Refused(f"cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Refused(f"cannot be reached: {error}") from None
    return answer


def _place(answer: http.client.HTTPResponse, have: int, size: int | None) -> tuple[int, int | None]:
    """At which byte of the file the answer's body begins, and the file's size, if that is known now.

    The body begins at `have`, or at 0 where the server sends all of the file again.
    """
    if "html" in answer.headers.get("Content-Type", ""):
        raise _Refused("answered with a web page")
    begins_at = 0
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if place is None or int(place[1]) != have or (size is not None and place[2] not in ("*", str(size))):
            raise _Refused("answered with another part than asked for")
        begins_at, said = have, place[2]
    else:
        said = answer.headers.get("Content-Length", "*")
    if size is None and said.isdecimal():
        size = int(said)
        if size > MOST_BYTES:
            raise _Refused(f"has a file of {size:,} bytes, more than {MOST_BYTES:,}")
    if said not in ("*", str(size)):
        raise _Refused(f"has a file of {said} bytes instead of {size}")
    return begins_at, size


def _receive(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        # A connection that breaks within a chunk; the file shows how much came.
        raise _CutOff(f"broke off: {type(error).__name__}") from None


def _put_in_place(part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _length(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


class _PublicConnection(http.client.HTTPSConnection):
    """Connects to an address that it has looked at, so that a name cannot stand for another one a moment later."""

    def connect(self) -> None:
        """Resolve the name once; where a proxy is asked to connect, that is the proxy's to do."""
        if self._tunnel_host is not None:  # type: ignore[attr-defined]
            return super().connect()
        self.sock = _connected(self.host, self.port, self.timeout)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)  # type: ignore[attr-defined]
        return None


def _connected(host: str, port: int, timeout: float | None) -> socket.socket:
    """A connection to the first public address of `host` that answers. Raises OSError."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not ipaddress.ip_address(address[0]).is_global:
            failure = OSError(f"{host} is at {address[0]}, which is no address of the public internet")
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


class _PublicHTTPS(urllib.request.HTTPSHandler):
    """Opens every https address by a `_PublicConnection`."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """The answer."""
        answer: http.client.HTTPResponse = self.do_open(_PublicConnection, req)
        return answer


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, and only to the schemes that were allowed to begin with."""

    max_redirections = 3

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
