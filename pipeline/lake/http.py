"""Documents at http and https addresses: fetched whole, up to a size, and within a time."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse, IncompleteRead, InvalidURL, responses
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
)

from pipeline import __version__
from pipeline.errors import ItemError
from pipeline.records import FailureKind

_SILENCE_S = 30.0
_WHOLE_S = 300.0
_BLOCK = 1 << 16
_URL_CHARACTERS = "%!#$&'()*+,/:;=?@[]~"


def is_http(uri: str) -> bool:
    """Return True if the URI is a web address."""
    return re.match("https?://", uri, re.IGNORECASE) is not None


def fetch(uri: str, max_bytes: int) -> bytes:
    """Return what a web address gives, `max_bytes` at most; redirects lead to others only.

    Messages name neither the address nor where it led: either may hold a key.

    Raises
    ------
    ItemError
        `source_missing` if it gives nothing, or not all; `source_too_large`.
    """
    address = quote(uri, safe=_URL_CHARACTERS)
    try:
        with cast(HTTPResponse, _opener().open(address, timeout=_SILENCE_S)) as answer:
            return _body(answer, max_bytes)
    except HTTPError as error:
        error.close()
        said = f"the server answers {error.code} {responses.get(error.code, '')}".rstrip()
    except URLError as error:
        said = f"the server cannot be reached: {_reason(error.reason)}"
    except (OSError, HTTPException, ValueError) as error:
        said = f"fetching it failed: {_reason(error)}"
    raise ItemError(FailureKind.SOURCE_MISSING, said)


def _opener() -> OpenerDirector:
    """One that speaks http and https and nothing else, wherever a server sends it."""
    opener = OpenerDirector()
    opener.addheaders = [("User-Agent", f"pagelake/{__version__}")]
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPRedirectHandler(),
        HTTPErrorProcessor(),
        HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _body(answer: HTTPResponse, max_bytes: int) -> bytes:
    announced = answer.length  # None if unknown
    if announced is not None and announced > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    for block in _blocks(answer):
        body += block
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    if announced is not None and len(body) < announced:
        raise ItemError(FailureKind.SOURCE_MISSING, "the server's answer broke off")
    return bytes(body)


def _blocks(answer: HTTPResponse) -> Iterator[bytes]:
    # One read of the system's a time: a server that trickles would hold a longer read for ever.
    deadline = time.monotonic() + _WHOLE_S
    while block := answer.read1(_BLOCK):
        yield block
        if time.monotonic() > deadline:
            raise TimeoutError


def _too_large(max_bytes: int) -> ItemError:
    return ItemError(
        FailureKind.SOURCE_TOO_LARGE,
        f"it is larger than {max_bytes >> 20} MiB; raise input.http_max_mb",
    )


_PHRASES: tuple[tuple[type, str], ...] = (
    (TimeoutError, "it takes too long"),
    (ssl.SSLCertVerificationError, "its certificate is not to be trusted"),
    (ssl.SSLError, "no secure connection with it can be made"),
    (IncompleteRead, "the answer broke off"),
    (ConnectionError, "the connection was cut"),
    (InvalidURL, "the address is malformed"),
    (HTTPException, "what is there does not speak HTTP"),
    (ValueError, "the address is malformed"),
    (str, "the address is malformed"),  # urllib's way to say that it names no host
)


def _reason(error: object) -> str:
    """What went wrong, in the system's words or fixed ones: the library's may hold the address."""
    words = getattr(error, "strerror", None)
    if isinstance(words, str) and words and not isinstance(error, ssl.SSLError):
        return words
    return next((said for kind, said in _PHRASES if isinstance(error, kind)), "no reason is known")
