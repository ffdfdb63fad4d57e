"""A set of 16-byte keys that only grows, at some 20 bytes a key."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from pipeline.lake.keys import KEY, as_array

_FEW = 1 << 16
_PART = 32  # of all keys; so many more wait in a set of Python's, at about 100 bytes each


class Seen:
    """Keys seen so far (see `pipeline.lake.keys`): sorted by their higher half, but for the last.

    Adding n of them takes time that grows like n log n.
    """

    def __init__(self) -> None:
        self._high = self._low = np.zeros(0, np.uint64).data
        self._new: set[bytes] = set()

    def add(self, key: bytes) -> bool:
        """Add a key; return True if it was not there."""
        if key in self._new or self._has(key):
            return False
        self._new.add(key)
        if len(self._new) > max(_FEW, len(self._high) // _PART):
            self._sort_in()
        return True

    def _has(self, key: bytes) -> bool:
        high, low = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
        place = bisect_left(self._high, high)
        while place < len(self._high) and self._high[place] == high:
            if self._low[place] == low:
                return True
            place += 1
        return False

    def _sort_in(self) -> None:
        new = np.sort(as_array(self._new).astype(KEY), order="high")
        places = np.searchsorted(np.asarray(self._high), new["high"])
        self._high = np.insert(np.asarray(self._high), places, new["high"]).data
        self._low = np.insert(np.asarray(self._low), places, new["low"]).data
        self._new = set()
