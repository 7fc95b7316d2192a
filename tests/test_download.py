import hashlib
import io
import threading

import pytest
from rich.console import Console

from convatlas import download as module
from convatlas.download import Digest, download, download_bar
from convatlas.errors import UserError

from .bad_server import CONTENT, serving

MD5 = Digest("md5", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
SIZE = len(CONTENT)
BEGINNING = Digest("sha256", SHA256.digits[:8])


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def run(*behaviours, digest=MD5, size=SIZE, **options):
        urls = [f"{server.address}/{behaviour}/x" for behaviour in behaviours]
        target = tmp_path / "sub" / "file.bin"
        download(urls, target, digest=digest, size=size, schemes={"http"}, **options)
        return target

    return run


def part_of(tmp_path, content):
    (tmp_path / "sub").mkdir()
    part = tmp_path / "sub" / "file.bin.part"
    part.write_bytes(content)
    return part


def names(folder):
    return sorted(path.name for path in folder.iterdir())


size_known_or_not = pytest.mark.parametrize("size", [SIZE, None], ids=["size known", "size unknown"])


@size_known_or_not
@pytest.mark.parametrize("digest", [MD5, SHA256, BEGINNING], ids=["md5", "sha256", "sha256 beginning"])
def test_a_file_is_fetched_checked_and_put_in_place(fetch, digest, size):
    seen = []
    target = fetch("good", digest=digest, size=size, progress=lambda *call: seen.append(call))
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["file.bin"]
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@size_known_or_not
def test_a_partial_file_is_gone_on_with(fetch, server, tmp_path, size):
    part_of(tmp_path, CONTENT[:400_000])
    assert fetch("good", size=size).read_bytes() == CONTENT
    assert server.asked == [("/good/x", "bytes=400000-")]


@size_known_or_not
def test_a_server_that_ignores_ranges_begins_anew(fetch, tmp_path, size):
    part_of(tmp_path, CONTENT[:400_000])
    assert fetch("ignores_ranges", size=size).read_bytes() == CONTENT


@size_known_or_not
def test_a_connection_that_breaks_is_taken_up_again(fetch, server, size):
    assert fetch("stutters", size=size).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_that_says_no_length_will_do_where_the_size_is_unknown(fetch):
    seen = []
    assert fetch("says_no_length", size=None, progress=lambda *call: seen.append(call)).read_bytes() == CONTENT
    assert seen[-1] == ("file.bin", len(CONTENT), 0)


@pytest.mark.parametrize("bad", ["dies", "page", "missing", "short", "other", "endless", "wrong_part", "to_file", "in_circles"])
@size_known_or_not
def test_a_mirror_that_fails_is_followed_by_the_next(fetch, bad, size):
    assert fetch(bad, "good", size=size).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("bad", "size", "reason"),
    [
        ("dies", len(CONTENT), "stopped after 0 of 1,024,000 bytes"),
        ("dies", None, "stopped after 0 of 1,024,000 bytes"),
        ("page", len(CONTENT), "answered with a web page"),
        ("plain_page", None, f"has other content .md5 .+, not {MD5.digits}"),
        ("missing", None, "answered 404"),
        ("short", len(CONTENT), "a file of 1000 bytes instead of 1024000"),
        ("short", None, "has other content"),
        ("other", len(CONTENT), "has other content"),
        ("huge", None, "has a file of 5,368,709,120 bytes, more than 4,294,967,296"),
        ("huge", len(CONTENT), "a file of 5368709120 bytes instead of 1024000"),
        ("endless", len(CONTENT), "sent more than the file has"),
        ("wrong_part", None, "another part than asked for"),
        ("to_file", None, "redirects to ftp"),
        ("in_circles", None, "infinite loop"),
    ],
)
def test_when_no_mirror_has_it_the_error_says_why_and_where_to_put_it(fetch, tmp_path, bad, size, reason):
    with pytest.raises(UserError, match=reason) as caught:
        fetch(bad, size=size)
    assert f"put the file at {tmp_path / 'sub' / 'file.bin'} by hand" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "sub") == []


def test_a_file_of_unknown_size_has_a_most(fetch, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    with pytest.raises(UserError, match="sent more"):
        fetch("says_no_length", size=None)
    assert names(tmp_path / "sub") == []


@pytest.mark.parametrize("digest", [SHA256, BEGINNING], ids=["whole", "beginning"])
def test_the_error_shows_as_much_of_the_checksum_as_was_published(fetch, digest):
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()[: len(digest.digits)]
    with pytest.raises(UserError, match=f"{found}, not {digest.digits}"):
        fetch("other", digest=digest)


def test_what_came_before_the_last_failure_is_kept(fetch, tmp_path):
    part = part_of(tmp_path, CONTENT[:400_000])
    with pytest.raises(UserError):
        fetch("missing")
    assert part.read_bytes() == CONTENT[:400_000]


@size_known_or_not
def test_a_partial_file_of_other_content_does_not_stay_in_the_way(fetch, tmp_path, size):
    part_of(tmp_path, b"x" * 400_000)
    assert fetch("good", size=size).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 1])
@size_known_or_not
def test_a_partial_file_that_is_too_long_does_not_stay_in_the_way(fetch, tmp_path, size, length):
    part_of(tmp_path, b"x" * length)
    assert fetch("good", size=size).read_bytes() == CONTENT


def test_a_whole_partial_file_needs_no_network(fetch, server, tmp_path):
    part_of(tmp_path, CONTENT)
    assert fetch("good").read_bytes() == CONTENT
    assert server.asked == []


def test_a_whole_partial_file_of_unknown_size_is_not_fetched_again(fetch, server, tmp_path):
    part_of(tmp_path, CONTENT)
    assert fetch("good", size=None).read_bytes() == CONTENT
    assert server.asked == [("/good/x", f"bytes={len(CONTENT)}-")]


def test_a_damaged_target_is_replaced_and_a_sound_one_is_not_fetched_again(fetch, server, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.bin").write_bytes(CONTENT[:-1] + b"?")
    for _ in range(2):
        assert fetch("good", size=None).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_damaged_target_stays_until_there_is_a_better_one(fetch, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.bin").write_bytes(b"damaged")
    with pytest.raises(UserError):
        fetch("other")
    assert (tmp_path / "sub" / "file.bin").read_bytes() == b"damaged"


def test_of_two_who_want_the_same_file_the_second_waits_for_the_first(fetch, server):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch("slow", size=None).read_bytes()), daemon=True) for _ in range(2)
    ]
    threads[0].start()
    assert server.asked_first.wait(20)
    threads[1].start()
    threads[1].join(0.3)
    server.go_on.set()
    for thread in threads:
        thread.join(20)
    assert found == [CONTENT, CONTENT]
    assert len(server.asked) == 1


def test_who_waited_holds_the_file_that_is_there_then(tmp_path):
    """Not the one that the first removed, which nobody else would wait for."""
    part, found = tmp_path / "file.bin.part", []

    def wait():
        with module._held(part):
            found.append(part.exists())

    thread = threading.Thread(target=wait, daemon=True)
    with module._held(part):
        thread.start()
        thread.join(0.3)
        assert found == []
    thread.join(20)
    assert found == [True]
    assert names(tmp_path) == []


def test_redirects_within_the_allowed_schemes_are_followed(fetch):
    assert fetch("moved").read_bytes() == CONTENT


def test_nothing_but_https_is_asked(server, tmp_path):
    with pytest.raises(UserError, match="is not https"):
        download([f"{server.address}/good/x"], tmp_path / "f", digest=MD5, size=len(CONTENT))
    assert server.asked == []


def test_without_a_network_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be reached"):
        download(["http://127.0.0.1:9/x"], tmp_path / "f", digest=MD5, size=len(CONTENT), schemes={"http"})


def test_a_target_that_cannot_be_written_is_one_line(fetch, tmp_path):
    (tmp_path / "sub").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        fetch("good")


@size_known_or_not
def test_the_bar_moves(fetch, size):
    screen = io.StringIO()
    with download_bar(Console(file=screen, force_terminal=True, width=100)) as progress:
        fetch("good", size=size, progress=progress)
    assert "connecting" in screen.getvalue()
    assert "file.bin" in screen.getvalue()
    assert "1.0/1.0 MB" in screen.getvalue()


PRIVATE = [
    "127.0.0.1",
    "0x7f.1",
    "2130706433",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "10.0.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "0.0.0.0",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused(tmp_path, host):
    with pytest.raises(UserError, match="no address of the public internet"):
        download([f"https://{host}/x"], tmp_path / "f", digest=MD5, size=SIZE)
    assert names(tmp_path) == []


def test_a_name_that_stands_for_a_private_address_is_refused_and_looked_up_once(tmp_path, monkeypatch):
    asked = []

    def resolve(host, port, **options):
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "8.8.8.8"
        return [(2, 1, 6, "", (address, port))]

    monkeypatch.setattr(module.socket, "getaddrinfo", resolve)
    with pytest.raises(UserError, match=r"mirror\.example is at 127\.0\.0\.1, which is no address of the public internet"):
        download(["https://mirror.example/x"], tmp_path / "f", digest=MD5, size=SIZE)
    assert asked == ["mirror.example"]


def test_a_redirect_to_a_private_address_is_refused(server, tmp_path):
    with pytest.raises(UserError, match="no address of the public internet"):
        download([f"{server.address}/inward/x"], tmp_path / "f", digest=MD5, size=SIZE, schemes={"http", "https"})


def test_a_circle_of_redirects_ends(server, tmp_path):
    with pytest.raises(UserError, match="redirect"):
        download([f"{server.address}/in_circles/x"], tmp_path / "f", digest=MD5, size=SIZE, schemes={"http"})
    assert len(server.asked) <= 5
