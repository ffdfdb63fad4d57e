"""Which pages need no more work: what a resumed run leaves out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.lake.keys import KeySet, last_places, page_key
from pipeline.lake.ledger import Ledger
from pipeline.lake.parquet import KEY_ROWS, read_batches
from pipeline.lake.row_pages import RowPages
from pipeline.records import FailureKind, State

_COLUMNS = ("document_id", "page_numbers", "state", "failure_kind")


class DoneSet:
    """The finished pages of one fingerprint, in 16 bytes a page."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, document_id: str, page_number: int) -> bool:
        """Return True if the page is finished."""
        return page_key(document_id, page_number) in self._keys

    def missing(
        self, document_ids: pa.StringArray, page_numbers: pa.ListArray
    ) -> NDArray[np.bool_]:
        """Return a mask of the pages of all rows, row after row: those that are not finished."""
        return ~self._keys.mask(RowPages.of(document_ids, page_numbers).keys)


def done_set(
    ledger: Ledger, fingerprint: str, retry: frozenset[FailureKind] | None = None
) -> DoneSet:
    """Read from the live files which pages are finished; the newest row of a page decides.

    With `retry` None every failed page is done again. With a set, pages whose failure is of one of
    these kinds are done again (truncated ones too, if asked for), and all others count as done.

    A row of which some pages have a newer row finishes none of the others, however it ended: its
    answer is about all of them, and no page may be told about in two rows.
    """
    files, done = [], [np.zeros(0, dtype=np.bool_)]
    for name in ledger.page_files(fingerprint):
        for batch in read_batches(ledger.layout, name, _COLUMNS, KEY_ROWS):
            files.append(RowPages.of(batch["document_id"], batch["page_numbers"]))
            done.append(_finished(batch, retry))
    rows, finished = RowPages.joined(files), np.concatenate(done)
    files.clear()  # ten million pages are 200 MB, and sorting them wants as much again
    places = last_places(rows.keys)
    latest = np.zeros(len(rows.keys), np.bool_)
    latest[places] = True
    finished = rows.spread(finished & rows.all(latest))
    return DoneSet(KeySet(rows.keys[places[finished[places]]]))


def _finished(batch: pa.RecordBatch, retry: frozenset[FailureKind] | None) -> NDArray[np.bool_]:
    if retry is None:
        again = pc.equal(batch["state"], State.FAILED.value)
    else:
        kinds = pa.array([kind.value for kind in retry], pa.string())
        again = pc.is_in(batch["failure_kind"], value_set=kinds)
    finished: NDArray[np.bool_] = ~again.to_numpy(zero_copy_only=False)
    return finished
