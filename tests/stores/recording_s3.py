"""An S3 endpoint made up for tests and proofs: it lists keys that nobody put, and fails on order.

It answers ListObjectsV2 (prefix, delimiter, start-after, continuation-token, max-keys) over keys
that are computed, HEAD and GET of them, whole, with the same few bytes, and PUT with nothing; it
keeps the requests that came.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from http_thread import answering

BODY = b"%PDF-1.4"
WHEN = "2026-01-02T03:04:05.678Z"
WHEN_HEADER = "Fri, 02 Jan 2026 03:04:05 GMT"

Fault = Callable[["Request"], int | str | None]
"""What to answer instead: a status, "hang", "cut", "stall", or None to answer as usual."""


@dataclass(frozen=True)
class Request:
    """A request that came: its method, its path, its query and its Authorization."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str

    @property
    def lists(self) -> bool:
        """True if it asks for a listing."""
        return "list-type" in self.query


@dataclass
class RecordingS3:
    """The endpoint: `keys` must be sorted, and may be any sequence that computes its items."""

    keys: Sequence[str] = ()
    fault: Fault = lambda _: None
    code: str = "SlowDown"
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def listing(self, query: dict[str, str]) -> bytes:
        """Return a page of ListObjectsV2."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        most = int(query.get("max-keys", 1000))
        place = max(bisect_right(self.keys, after), bisect_left(self.keys, prefix))
        found, more, last = [], False, ""
        folders: dict[str, None] = {}
        while place < len(self.keys) and (key := self.keys[place]).startswith(prefix):
            if len(found) + len(folders) == most:
                more = True
                break
            head, mark, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if mark:
                folders[prefix + head + mark] = None
                last = prefix + head + mark + "\U0010ffff"
                place = bisect_right(self.keys, last)
            else:
                found.append(key)
                last, place = key, place + 1
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{WHEN}</LastModified>"
            f"<ETag>&quot;e&quot;</ETag><Size>{len(BODY)}</Size></Contents>"
            for key in found
        )
        prefixes = "".join(
            f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders
        )
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{contents}{prefixes}</ListBucketResult>"
        ).encode()

    def has(self, key: str) -> bool:
        """Return True if there is such a key."""
        place = bisect_left(self.keys, key)
        return place < len(self.keys) and self.keys[place] == key


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: RecordingS3

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, True).items()}
        self.rfile.read(int(self.headers.get("content-length") or 0))
        authorization = self.headers.get("authorization", "")
        request = Request(self.command, unquote(parts.path), query, authorization)
        self.s3.requests.append(request)
        fault = self.s3.fault(request)
        if fault == "hang":
            time.sleep(5)
            self.close_connection = True
        elif fault in ("cut", "stall"):
            self._begin(200)
            self.send_header("content-length", "1000")
            self.send_header("last-modified", WHEN_HEADER)
            self.end_headers()
            self.wfile.write(b"<ListBucketResult>")
            time.sleep(1 if fault == "stall" else 0)
            self.close_connection = True
        elif fault is not None:
            body = f"<Error><Code>{self.s3.code}</Code><Message>no</Message></Error>"
            self._send(int(fault), body.encode())
        elif "uploads" in query:
            self._send(200, b"<X><UploadId>u</UploadId></X>")
        elif request.lists:
            self._send(200, self.s3.listing(query))
        elif self.command in ("GET", "HEAD") and not self.s3.has(request.path.split("/", 2)[2]):
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._send(200, BODY if self.command in ("GET", "HEAD") else b"")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _send(self, status: int, body: bytes) -> None:
        self._begin(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("last-modified", WHEN_HEADER)
        self.send_header("etag", '"e"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int) -> None:
        """Say that a range is one; those asked for are the whole."""
        ranged = status == 200 and self.headers.get("range") is not None
        self.send_response(206 if ranged else status)
        if ranged:
            self.send_header("content-range", f"bytes 0-{len(BODY) - 1}/{len(BODY)}")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def recording_s3(keys: Sequence[str] = ()) -> Iterator[RecordingS3]:
    """Serve made-up keys from a thread of this process."""
    s3 = RecordingS3(keys)
    handler = type("Handler", (_Handler,), {"s3": s3})
    with answering(handler) as s3.endpoint:
        yield s3


class Numbered(Sequence[str]):
    """`count` keys below a folder, none of which is held: folder/0000000.pdf and so on."""

    def __init__(self, count: int, folder: str = "scans") -> None:
        self._count, self._folder = count, folder

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if place >= self._count:
            raise IndexError
        return f"{self._folder}/{place:08}.pdf"


def main() -> None:
    """Serve so many numbered keys until somebody ends the process; print where."""
    with recording_s3(Numbered(int(sys.argv[1]))) as s3:
        print(s3.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
