import hashlib
import http.server
import threading

import pytest

from convatlas.data.catalog import CATALOG
from convatlas.data.download import download, download_entry
from convatlas.errors import UserError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Behaves as the first part of the path says; notes what was asked."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        getattr(self, "do_" + self.path.split("/")[1])()

    def answer(self, status, body, *, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_good(self):
        asked = self.headers.get("Range")
        if asked is None:
            return self.answer(200, CONTENT)
        first = int(asked.removeprefix("bytes=").removesuffix("-"))
        part = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return self.answer(206, CONTENT[first:], Content_Range=part)

    def do_ignores_ranges(self):
        self.answer(200, CONTENT)

    def do_stutters(self):
        """Breaks off after 300,000 bytes of whatever is missing."""
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        part = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
        body = CONTENT[first : first + 300_000]
        self.answer(206 if first else 200, body, length=len(CONTENT) - first, **({"Content_Range": part} if first else {}))

    def do_dies(self):
        self.answer(200, b"", length=len(CONTENT))

    def do_page(self):
        self.answer(200, b"<html>Sign in to the network</html>", Content_Type="text/html; charset=utf-8")

    def do_missing(self):
        self.answer(404, b"<html>not found</html>", Content_Type="text/html")

    def do_short(self):
        self.answer(200, CONTENT[:1000])

    def do_other(self):
        self.answer(200, CONTENT[::-1])

    def do_endless(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT * 3)

    def do_wrong_part(self):
        self.answer(206, CONTENT[5:], Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")

    def do_to_file(self):
        self.answer(302, b"", Location="ftp://127.0.0.1/etc/passwd")

    def do_moved(self):
        self.answer(302, b"", Location="/good/x")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def run(*behaviours, **options):
        urls = [f"http://127.0.0.1:{server.server_port}/{behaviour}/x" for behaviour in behaviours]
        target = tmp_path / "sub" / "file.bin"
        download(urls, target, md5=MD5, size=len(CONTENT), schemes={"http"}, **options)
        return target

    return run


def part_of(tmp_path, content):
    (tmp_path / "sub").mkdir()
    part = tmp_path / "sub" / "file.bin.part"
    part.write_bytes(content)
    return part


def test_a_file_is_fetched_checked_and_put_in_place(fetch, tmp_path):
    seen = []
    target = fetch("good", progress=lambda *call: seen.append(call))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_partial_file_is_gone_on_with(fetch, server, tmp_path):
    part_of(tmp_path, CONTENT[:400_000])
    assert fetch("good").read_bytes() == CONTENT
    assert server.asked == [("/good/x", "bytes=400000-")]


def test_a_server_that_ignores_ranges_begins_anew(fetch, tmp_path):
    part_of(tmp_path, CONTENT[:400_000])
    assert fetch("ignores_ranges").read_bytes() == CONTENT


def test_a_connection_that_breaks_is_taken_up_again(fetch, server):
    assert fetch("stutters").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize("bad", ["dies", "page", "missing", "short", "other", "endless", "wrong_part", "to_file"])
def test_a_mirror_that_fails_is_followed_by_the_next(fetch, bad):
    assert fetch(bad, "good").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("dies", "stopped after 0 of 1,024,000 bytes"),
        ("page", "answered with a web page"),
        ("missing", "answered 404"),
        ("short", "a file of 1000 bytes instead of 1024000"),
        ("other", "has other content"),
        ("endless", "sent more than the file has"),
        ("wrong_part", "another part than asked for"),
        ("to_file", "redirects to ftp"),
    ],
)
def test_when_no_mirror_has_it_the_error_says_why_and_where_to_put_it(fetch, tmp_path, bad, reason):
    with pytest.raises(UserError, match=reason) as caught:
        fetch(bad)
    assert f"put the file at {tmp_path / 'sub' / 'file.bin'} by hand" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sub" / "file.bin").exists()


def test_what_came_before_the_last_failure_is_kept(fetch, tmp_path):
    part = part_of(tmp_path, CONTENT[:400_000])
    with pytest.raises(UserError):
        fetch("missing")
    assert part.read_bytes() == CONTENT[:400_000]


def test_a_partial_file_of_other_content_does_not_stay_in_the_way(fetch, tmp_path):
    part_of(tmp_path, b"x" * 400_000)
    assert fetch("good", "good").read_bytes() == CONTENT


def test_a_whole_partial_file_needs_no_network(fetch, server, tmp_path):
    part_of(tmp_path, CONTENT)
    assert fetch("good").read_bytes() == CONTENT
    assert server.asked == []


def test_redirects_within_the_allowed_schemes_are_followed(fetch):
    assert fetch("moved").read_bytes() == CONTENT


def test_nothing_but_https_is_asked(server, tmp_path):
    with pytest.raises(UserError, match="is not https"):
        download([f"http://127.0.0.1:{server.server_port}/good/x"], tmp_path / "f", md5=MD5, size=len(CONTENT))
    assert server.asked == []


def test_without_a_network_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be reached"):
        download(["http://127.0.0.1:9/x"], tmp_path / "f", md5=MD5, size=len(CONTENT), schemes={"http"})


def test_a_target_that_cannot_be_written_is_one_line(fetch, tmp_path):
    (tmp_path / "sub").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        fetch("good")


def test_only_missing_files_of_an_entry_are_fetched(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("convatlas.data.download.download", lambda urls, target, **_: asked.append(target.name))
    files = [item.file for item in CATALOG["mnist"].downloads]
    (tmp_path / files[1]).touch()
    download_entry("mnist", tmp_path, progress=None)
    assert asked == [files[0], *files[2:]]
