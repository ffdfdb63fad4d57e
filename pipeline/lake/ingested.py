"""Which documents have their rows in the published table: what an ingest leaves alone.

That is told by the plan files that the manifest names: what a killed run planned is known (see
`pipeline.lake.known`), but not ingested.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.lake.http import is_http
from pipeline.lake.keys import Keys, KeySet, as_array, column_keys, packed_keys, text_key, text_keys
from pipeline.lake.known import ingested_files, tells_version
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Manifest
from pipeline.lake.parquet import KEY_ROWS, read_batches
from pipeline.lake.source import TOLD
from pipeline.records import FailureKind

Mask = NDArray[np.bool_]


class Ingested:
    """The documents of a table's manifest: 17 bytes each, and as much again once asked for uris.

    Of those in whose rows a failure of one of the kinds `retry` is, a new look is wanted.
    """

    def __init__(
        self,
        layout: Layout,
        manifest: Manifest | None,
        retry: frozenset[FailureKind] = frozenset(),
    ) -> None:
        self._layout = layout
        named = [] if manifest is None else ingested_files(manifest.plans)
        self._files = [name for name in named if layout.exists(name)]  # else: planned once more
        self._retry = pa.array([kind.value for kind in retry], pa.string())
        pages = () if manifest is None or not retry else manifest.pages
        self._contents_again = KeySet(self._failed_contents(pages))
        keys, again = [as_array([])], [np.zeros(0, np.bool_)]
        for batch in self._batches("key", "document_id", "failure.kind"):
            keys.append(packed_keys(batch["key"]))
            again.append(self._again(batch))
        self._settled = ~np.concatenate(again)
        all_keys = np.concatenate(keys)
        self._versions = KeySet(all_keys)
        self._settled_versions = KeySet(all_keys[self._settled]) if retry else self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def unchanged(self, documents: pa.Table, keys: Keys) -> Mask:
        """Say which listed documents are to be left alone; `keys` are their `version_keys`.

        So are those that are not there any more. What tells neither size nor time is to be planned
        first, and `same` to be asked.
        """
        gone = _not_there(documents)
        found = self._settled_versions.mask(keys) & (tells_version(documents) | gone)
        rest = np.flatnonzero(gone & ~found)
        if len(rest):
            found[rest] = self._uris.mask(text_keys(documents.take(pa.array(rest))["uri"]))
        return found

    def same(self, planned: pa.Table) -> Mask:
        """Say of planned documents that tell neither size nor time whether nothing is new.

        That is so if they have the content that they had, or gave none this time.
        """
        found = np.zeros(planned.num_rows, np.bool_)
        rest = np.flatnonzero(untold(planned))
        if len(rest):
            table = planned.take(pa.array(rest))
            lost = table["document_id"].is_null().to_numpy()
            found[rest] = self._contents.mask(_content_keys(table))
            found[rest] |= lost & self._settled_uris.mask(text_keys(table["uri"]))
        return found

    def ingested_before(self, planned: pa.Table) -> tuple[Mask, Mask]:
        """Say of planned documents which uris are in the table, and which with this version."""
        uris = self._uris.mask(text_keys(planned["uri"]))
        keys = packed_keys(planned["key"].combine_chunks())
        return uris, uris & self._versions.mask(keys) & ~untold(planned)

    @cached_property
    def _all_uris(self) -> Keys:
        found = [as_array([]), *(text_keys(one["uri"]) for one in self._batches("uri"))]
        return np.concatenate(found)

    @cached_property
    def _uris(self) -> KeySet:
        return KeySet(self._all_uris)

    @cached_property
    def _settled_uris(self) -> KeySet:
        return KeySet(self._all_uris[self._settled])

    @cached_property
    def _contents(self) -> KeySet:
        """Keys of uri and content of what told neither size nor time."""
        found, start = [as_array([])], 0
        for batch in self._batches("uri", "size", "modified", "document_id"):
            settled = self._settled[start : start + batch.num_rows]
            start += batch.num_rows
            table = pa.Table.from_batches([batch])
            found.append(_content_keys(table.filter(pa.array(untold(table) & settled))))
        return KeySet(np.concatenate(found))

    def _again(self, batch: pa.RecordBatch) -> Mask:
        kinds = pc.struct_field(batch["failure"], "kind")
        again: Mask = pc.is_in(kinds, value_set=self._retry).to_numpy(zero_copy_only=False)
        if len(self._contents_again):
            has_id = np.flatnonzero(batch["document_id"].is_valid().to_numpy(zero_copy_only=False))
            ids = column_keys(batch["document_id"].drop_null())
            again = again.copy()
            again[has_id] |= self._contents_again.mask(ids)
        return again

    def _failed_contents(self, pages: Sequence[str]) -> Keys:
        """Return the keys of the documents of which a page failed in one of the ways to retry."""
        found = [as_array([])]
        for name in pages:
            columns = ["document_id", "failure_kind"]
            for batch in read_batches(self._layout, name, columns, KEY_ROWS):
                again = pc.is_in(batch["failure_kind"], value_set=self._retry)
                found.append(column_keys(batch["document_id"].filter(again)))
        return np.concatenate(found)

    def _batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        for name in self._files:
            yield from read_batches(self._layout, name, columns, KEY_ROWS)


def untold(documents: pa.Table) -> Mask:
    """Say which documents are there, as far as one knows, and do not tell their version."""
    return ~tells_version(documents) & ~_not_there(documents)


def _not_there(documents: pa.Table) -> Mask:
    """Say which documents are files that a manifest names and that are not there.

    Nobody has looked for web addresses, nor for what a manifest is trusted to tell.
    """
    no_size, trusted = pc.less(documents["size"], 0), pc.starts_with(documents["modified"], TOLD)
    gone: Mask = pc.and_not(no_size, trusted).to_numpy().copy()
    for place in np.flatnonzero(gone):
        gone[place] = not is_http(documents["uri"][int(place)].as_py())
    return gone


def _content_keys(table: pa.Table) -> Keys:
    pairs = zip(table["uri"].to_pylist(), table["document_id"].to_pylist(), strict=True)
    return as_array(text_key(f"{uri}\0{content or ''}") for uri, content in pairs)
