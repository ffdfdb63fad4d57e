"""Keys of 16 bytes: small enough to hold by the ten million, too long to collide.

A document's key is its id, which is a sha256 already, folded in half; a page's is that with the
page's number folded in. Whole columns of them are made by numpy, and nothing is hashed again.
What else must have a key, a URI or an id that is no sha256, is hashed. Among a billion keys, two
are the same by chance with a probability of 2**-69.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

KEY = np.dtype([("high", "<u8"), ("low", "<u8")])
"""Two halves, because numpy sorts and searches integers many times faster than bytes."""

Keys = NDArray[np.void]
"""Keys: dtype `KEY`, shape (n,)."""

_SHA256 = re.compile("[0-9a-f]{64}")
_NOT_HEX = 16
_HEX = np.full(256, _NOT_HEX, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def page_key(document_id: str, page_number: int) -> bytes:
    """Return the key of a page; its fingerprint is left to the file that its row lies in."""
    key = document_key(document_id)
    high = int.from_bytes(key[:8], "little") ^ page_number
    return high.to_bytes(8, "little") + key[8:]


def document_key(document_id: str) -> bytes:
    """Return the key of a document's id."""
    if _SHA256.fullmatch(document_id):
        halves = int(document_id[:32], 16) ^ int(document_id[32:], 16)
        return halves.to_bytes(16, "big")
    return text_key(document_id)


def text_key(text: str) -> bytes:
    """Return the key of any text, such as a URI."""
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()


def text_keys(texts: pa.Array | pa.ChunkedArray) -> Keys:
    """Return the key of every text of a column, in order."""
    return as_array(map(text_key, texts.to_pylist()))


def as_array(keys: Iterable[bytes]) -> Keys:
    """Pack keys into an array, in order; a stream of them is never held as objects."""
    packed = bytearray()
    for key in keys:
        packed += key
    return np.frombuffer(packed, KEY)


def packed_keys(column: pa.FixedSizeBinaryArray) -> Keys:
    """Return the keys that a column without nulls holds as they are."""
    return np.frombuffer(column.buffers()[1], KEY, len(column), column.offset * KEY.itemsize)


def column_keys(document_ids: pa.StringArray) -> Keys:
    """Return the `document_key` of every id of a column without nulls."""
    size = len(document_ids)
    if size == 0:
        return as_array([])
    _, offsets, values = document_ids.buffers()
    ends = np.frombuffer(offsets, np.int32, size + 1, document_ids.offset * 4)
    if np.all(np.diff(ends) == 64):
        text = np.frombuffer(values, np.uint8, size * 64, int(ends[0]))
        digits = _HEX[text].reshape(size, 64)
        if digits.max() < _NOT_HEX:
            folded = digits[:, :32] ^ digits[:, 32:]
            return (folded[:, ::2] << 4 | folded[:, 1::2]).view(KEY).reshape(size)
    return as_array(map(document_key, document_ids.to_pylist()))


def digest_keys(digests: pa.StringArray) -> Keys:
    """Return digests of 32 hex digits as keys; null, or what is none, is a key of zeros."""
    digests = pc.if_else(
        pc.equal(pc.binary_length(digests), 32).fill_null(False), digests, "0" * 32
    )
    size = len(digests)
    if size == 0:
        return as_array([])
    _, offsets, values = digests.buffers()
    start = int(np.frombuffer(offsets, np.int32, 1, digests.offset * 4)[0])
    digits = _HEX[np.frombuffer(values, np.uint8, size * 32, start)].reshape(size, 32)
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(KEY).reshape(size)


def page_keys(documents: Keys, page_numbers: NDArray[Any]) -> Keys:
    """Return the `page_key` of every page, given their documents' keys and their numbers."""
    keys = documents.copy()
    keys["high"] ^= page_numbers.astype(np.uint64)
    return keys


def newest(keys: Keys) -> NDArray[np.bool_]:
    """Return a mask that is True at the last occurrence of every key."""
    last = np.zeros(len(keys), dtype=np.bool_)
    last[last_places(keys)] = True
    return last


def last_places(keys: Keys) -> NDArray[np.int64]:
    """Return the place of the last occurrence of every key, in the sorted order of the keys."""
    order = _sorting(keys)
    high, low = keys["high"][order], keys["low"][order]
    is_last = np.ones(len(keys), dtype=np.bool_)
    is_last[:-1] = (high[:-1] != high[1:]) | (low[:-1] != low[1:])
    return order[is_last]


class KeySet:
    """A set of keys in 16 bytes a member."""

    def __init__(self, keys: Keys) -> None:
        order = _sorting(keys)  # at once, if they are sorted already
        self._high = keys["high"][order]
        self._low = keys["low"][order]

    def __len__(self) -> int:
        return len(self._high)

    def __contains__(self, key: bytes) -> bool:
        return bool(self.mask(as_array([key]))[0])

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the places of keys among the sorted members, shape (n,); -1 for no member."""
        high, low = np.ascontiguousarray(keys["high"]), keys["low"]
        found = np.full(len(keys), -1, np.int64)
        wanted = np.arange(len(keys))
        place = np.searchsorted(self._high, high)
        # One turn, but for keys that share a half with another one.
        while len(wanted):
            inside = place < len(self._high)
            wanted, place = wanted[inside], place[inside]
            alike = self._high[place] == high[wanted]
            wanted, place = wanted[alike], place[alike]
            same = self._low[place] == low[wanted]
            found[wanted[same]] = place[same]
            wanted, place = wanted[~same], place[~same] + 1
        return found

    def mask(self, keys: Keys) -> NDArray[np.bool_]:
        """Return a mask, shape (n,), that is True at the keys that are members."""
        return self.find(keys) >= 0

    def doubled(self) -> int:
        """Return how many members are the same as another one before them."""
        same = (self._high[:-1] == self._high[1:]) & (self._low[:-1] == self._low[1:])
        return int(np.count_nonzero(same))


def _sorting(keys: Keys) -> NDArray[np.int64]:
    """Return the places of keys in their sorted order; equal ones keep the order they had."""
    high, low = np.ascontiguousarray(keys["high"]), keys["low"]
    order = np.argsort(high, kind="stable")
    high, low = high[order], low[order]
    if np.any((high[:-1] == high[1:]) & (low[:-1] != low[1:])):  # by chance, once in a billion
        return np.lexsort((keys["low"], keys["high"]))
    return order
