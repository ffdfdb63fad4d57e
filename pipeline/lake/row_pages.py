"""Which rows of `pages` are live: the newest row of a page has the say.

A row holds the pages of one prompt, and pages that are done again may come back in other company:
[1, 2, 3] fails as a whole, and later [1, 3] is ok while 2 fails by itself. So the unit of what is
superseded is the page, and a row is live for as long as it is the newest of one of its pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.lake.keys import Keys, as_array, column_keys, newest, page_keys


@dataclass(frozen=True, slots=True)
class RowPages:
    """The pages of rows: `keys` of them all, row after row, and how many each row has: 20 bytes a
    page where rows have one."""

    keys: Keys
    counts: NDArray[np.int32]

    @classmethod
    def of(cls, document_ids: pa.StringArray, page_numbers: pa.ListArray) -> RowPages:
        """Read two columns without nulls."""
        counts = page_numbers.value_lengths().to_numpy()
        documents = np.repeat(column_keys(document_ids), counts)
        return cls(page_keys(documents, page_numbers.flatten().to_numpy()), counts)

    @classmethod
    def joined(cls, parts: Iterable[RowPages]) -> RowPages:
        """Put rows behind one another."""
        keys, counts = [as_array([])], [np.zeros(0, np.int32)]
        for part in parts:
            keys.append(part.keys)
            counts.append(part.counts)
        return cls(np.concatenate(keys), np.concatenate(counts))

    def spread(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Give each page what its row has."""
        return np.repeat(rows, self.counts)

    def any(self, pages: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say of each row whether one of its pages is True."""
        if np.all(self.counts == 1):
            return pages
        found = np.zeros(len(self.counts), np.bool_)
        rows = np.flatnonzero(self.counts)
        starts = np.cumsum(self.counts)[rows] - self.counts[rows]
        found[rows] = np.logical_or.reduceat(pages, starts) if len(rows) else False
        return found

    def all(self, pages: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say of each row whether all of its pages are True."""
        return ~self.any(~pages)


def live_rows(files: Sequence[RowPages]) -> list[NDArray[np.bool_]]:
    """Return a mask of the live rows of each file; files and their rows come oldest first."""
    if not files:
        return []
    latest = newest(np.concatenate([file.keys for file in files]))
    ends = np.cumsum([len(file.keys) for file in files])
    return [file.any(pages) for file, pages in zip(files, np.split(latest, ends[:-1]), strict=True)]
