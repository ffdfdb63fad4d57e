"""Which pages need no more work: what a resumed run leaves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.lake.keys import KeySet, as_array, newest, page_key
from pipeline.lake.ledger import Ledger
from pipeline.lake.parquet import page_keys, read_batches
from pipeline.records import FailureKind, State


class DoneSet:
    """The finished pages of one fingerprint, in 16 bytes a page."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def contains(self, document_id: str, page_numbers: Sequence[int]) -> bool:
        """Return True if the row of these pages is finished."""
        return page_key(document_id, page_numbers) in self._keys


def done_set(
    ledger: Ledger, fingerprint: str, retry: frozenset[FailureKind] | None = None
) -> DoneSet:
    """Read from the live files which pages are finished; the newest row of a page decides.

    With `retry` None every failed page is done again. With a set, pages whose failure is of one of
    these kinds are done again (truncated ones too, if asked for), and all others count as done.
    """
    keys, done = [as_array([])], [np.zeros(0, dtype=np.bool_)]
    for name in ledger.page_files(fingerprint):
        keys.append(page_keys(ledger.layout, name))
        for batch in read_batches(ledger.layout, name, ["state", "failure_kind"]):
            if retry is None:
                finished = [state != State.FAILED for state in batch["state"].to_pylist()]
            else:
                finished = [kind not in retry for kind in batch["failure_kind"].to_pylist()]
            done.append(np.array(finished, dtype=np.bool_))
    all_keys = np.concatenate(keys)
    return DoneSet(KeySet(all_keys[newest(all_keys) & np.concatenate(done)]))
