"""Which document of the truth a row is: by its URI, or by the end of its path."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote


def truth_key(uri: str) -> str:
    """Return a truth's URI in the form that `row_keys` gives: "./a//b.png" as "a/b.png"."""
    if uri.startswith("file://"):
        return unquote(uri.removeprefix("file://"))
    return uri if "://" in uri else posixpath.normpath(uri)


def row_keys(uri: str) -> Iterator[str]:
    """Yield what the truth may call a row's document, the most exact first.

    That is the URI itself, and then its path's ends, whole names only, from the longest to the file
    name; of a URI with a scheme, the same with its percent signs decoded.
    """
    yield uri
    scheme, mark, rest = uri.rpartition("://")
    paths = [rest]
    if mark:
        decoded = unquote(rest.partition("?")[0])
        paths = [decoded] if decoded == rest else [decoded, rest]
    for path in paths:
        if scheme == "file":
            yield path
        end = path.strip("/")
        while end:
            yield end
            end = end.partition("/")[2]
