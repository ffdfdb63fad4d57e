"""Row keys as 16-byte digests: small enough to hold by the ten million, too long to collide."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.bytes_]
"""Digests: dtype S16, shape (n,)."""


def page_key(document_id: str, page_numbers: Sequence[int]) -> bytes:
    """Return the digest of a row of `pages`; its fingerprint is left to the file it lies in."""
    return _digest(f"{document_id}:{','.join(map(str, page_numbers))}")


def uri_key(uri: str) -> bytes:
    """Return the digest of a document's URI."""
    return _digest(uri)


def document_key(document_id: str) -> bytes:
    """Return the digest of a document's id."""
    return _digest(document_id)


def as_array(digests: Iterable[bytes]) -> Keys:
    """Pack digests into an array, in order; a stream of them is never held as objects."""
    packed = bytearray()
    for digest in digests:
        packed += digest
    return np.frombuffer(packed, dtype="S16")


def newest(keys: Keys) -> NDArray[np.bool_]:
    """Return a mask that is True at the last occurrence of every key."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    last = np.ones(len(keys), dtype=np.bool_)
    last[order[:-1]] = sorted_keys[:-1] != sorted_keys[1:]
    return last


class KeySet:
    """A set of digests in 16 bytes a member."""

    def __init__(self, keys: Keys) -> None:
        self._keys = np.sort(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        # numpy drops trailing zero bytes of an S16, so the wanted key must be one as well.
        wanted = as_array([key])[0]
        place = np.searchsorted(self._keys, wanted)
        return bool(place < len(self._keys) and self._keys[place] == wanted)

    def mask(self, keys: Keys) -> NDArray[np.bool_]:
        """Return a mask, shape (n,), that is True at the keys that are members."""
        first = np.searchsorted(self._keys, keys, side="left")
        return first < np.searchsorted(self._keys, keys, side="right")

    def doubled(self) -> int:
        """Return how many members are the same as another one before them."""
        return int(np.count_nonzero(self._keys[:-1] == self._keys[1:]))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
