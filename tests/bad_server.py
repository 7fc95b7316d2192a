"""A web server on this machine that behaves as badly as the network does, for the tests of whatever fetches files."""

import http.server
import threading
from contextlib import contextmanager

CONTENT = bytes(range(256)) * 4000


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

    def first(self):
        """The first byte that is asked for."""
        return int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def do_good(self):
        first = self.first()
        if self.headers.get("Range") is None:
            return self.answer(200, CONTENT)
        if first >= len(CONTENT):
            return self.answer(416, b"", Content_Range=f"bytes */{len(CONTENT)}")
        return self.answer(206, CONTENT[first:], Content_Range=f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")

    def do_slow(self):
        self.server.asked_first.set()
        self.server.go_on.wait(20)
        self.do_good()

    def do_ignores_ranges(self):
        self.answer(200, CONTENT)

    def do_stutters(self):
        """Breaks off after 300,000 bytes of whatever is missing."""
        first = self.first()
        part = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
        body = CONTENT[first : first + 300_000]
        self.answer(206 if first else 200, body, length=len(CONTENT) - first, **({"Content_Range": part} if first else {}))

    def do_dies(self):
        self.answer(200, b"", length=len(CONTENT))

    def do_page(self):
        self.answer(200, b"<html>Sign in to the network</html>", Content_Type="text/html; charset=utf-8")

    def do_plain_page(self):
        """A sign-in page that does not say so."""
        self.answer(200, b"<html>Sign in to the network</html>", Content_Type="application/octet-stream")

    def do_missing(self):
        self.answer(404, b"<html>not found</html>", Content_Type="text/html")

    def do_short(self):
        self.answer(200, CONTENT[:1000])

    def do_other(self):
        self.answer(200, CONTENT[::-1])

    def do_huge(self):
        self.answer(200, b"", length=5 << 30)

    def do_says_no_length(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)

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

    def do_inward(self):
        """To what answers on many machines of a cloud with their secrets."""
        self.answer(302, b"", Location="https://169.254.169.254/latest/meta-data")

    def do_in_circles(self):
        self.answer(302, b"", Location=self.path)

    def log_message(self, *_):
        pass


@contextmanager
def serving(handler=Handler):
    """The server, running; `asked` lists the paths and ranges it was asked for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked, running.asked_first, running.go_on = [], threading.Event(), threading.Event()
        running.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.go_on.set()
            running.shutdown()
            thread.join()
