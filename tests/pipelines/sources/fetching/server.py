"""A local web server that supports Range requests, and fails in the ways of real networks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Home:
    """The files of a server, and its failures.

    Attributes:
        files: content by path.
        breaks: numbers of bytes after which an answer is cut off, one per answer, in order.
        refuses: number of first requests that are answered with 503.
        ranges: whether the server supports Range.
        tag: the ETag.
        ranges_seen: the Range header of every request.
    """

    files: dict[str, bytes]
    breaks: list[int] = field(default_factory=list)
    refuses: int = 0
    ranges: bool = True
    tag: str = '"one"'
    ranges_seen: list[str | None] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(home: Home) -> Iterator[Home]:
    """Serve on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            home.ranges_seen.append(self.headers.get("Range"))
            content = home.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            if home.refuses:
                home.refuses -= 1
                self.send_error(503)
                return
            self._answer(content)

        def _answer(self, content: bytes) -> None:
            start, requested = 0, self.headers.get("Range")
            if requested and home.ranges and self.headers.get("If-Range") == home.tag:
                start = int(requested.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", home.tag)
            self.end_headers()
            body = content[start:]
            self.wfile.write(body[: home.breaks.pop(0)] if home.breaks else body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home.address = f"http://127.0.0.1:{server.server_port}"
        yield home
        server.shutdown()
