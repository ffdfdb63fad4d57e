"""One bucket in memory that heeds the conditions of puts, as Google's store and S3 say them.

It gives ranges, and heeds no condition of a read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from http_thread import answering


@dataclass
class ConditionalStore:
    """The endpoint. The answer to the next put that finds its version is lost if `deaf`.

    Puts with a header that is `unknown` are answered with 501.
    """

    endpoint: str = ""
    deaf: bool = False
    unknown: frozenset[str] = frozenset()
    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    numbers: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ConditionalStore

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if any(name in self.headers for name in self.store.unknown):
            self._send(501)
            return
        _, number = self.store.objects.get(self.path, (b"", 0))
        expected = self.headers.get("x-goog-if-generation-match", str(number))
        tag = self.headers.get("if-match", f'"{number}"')
        fresh = self.headers.get("if-none-match") is None or number == 0
        if (expected, tag, fresh) != (str(number), f'"{number}"', True):
            self._send(412)
            return
        self.store.numbers += 1
        self.store.objects[self.path] = (data, self.store.numbers)
        lost, self.store.deaf = self.store.deaf, False
        self._send(500 if lost else 200, number=self.store.numbers)

    def do_GET(self) -> None:
        data, number = self.store.objects.get(self.path, (b"", 0))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if not number or asked is None:
            self._send(200 if number else 404, data, number)
            return
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        self._send(206, data[first : last + 1], number, f"bytes {first}-{last}/{len(data)}")

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.store.objects.pop(self.path, None)
        self._send(204)

    def do_POST(self) -> None:
        """Delete what a DeleteObjects of S3 names."""
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        bucket = self.path.split("/")[1].partition("?")[0]
        for key in re.findall(r"<Key>(.*?)</Key>", asked):
            self.store.objects.pop(f"/{bucket}/{key}", None)
        self._send(200, b"<DeleteResult/>")

    def _send(self, status: int, data: bytes = b"", number: int = 0, part: str = "") -> None:
        self.send_response(status)
        if part:
            self.send_header("content-range", part)
        self.send_header("content-length", str(len(data)))
        self.send_header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        self.send_header("etag", f'"{number}"')
        self.send_header("x-goog-generation", str(number))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def conditional_store() -> Iterator[ConditionalStore]:
    """Serve an empty bucket from a thread of this process."""
    store = ConditionalStore()
    handler = type("Handler", (_Handler,), {"store": store})
    with answering(handler) as store.endpoint:
        yield store
