"""Rows of `pages` on their way back to PageResults, without their text, tokens and timings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.lake.exact_json import loads
from pipeline.lake.keys import KeySet, column_keys
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import BATCH_ROWS, opened
from pipeline.lake.row_pages import RowPages, live_rows
from pipeline.records import Failure, FailureKind, PageResult, SampleId, StageName, State

_PAGE_COLUMNS: Mapping[str, pa.DataType] = {
    "document_id": pa.string(),
    "uri": pa.string(),
    "n_pages": pa.int32(),
    "page_numbers": pa.list_(pa.field("element", pa.int32())),
    "state": pa.string(),
    "failure_kind": pa.string(),
    "failure_stage": pa.string(),
    "failure_message": pa.string(),
    "attempts": pa.int32(),
    "record_json": pa.string(),
    "run_id": pa.string(),
}

PAGE_ROWS = pa.schema({**_PAGE_COLUMNS, "has_record": pa.bool_()})
"""A row of `pages` without the record's struct: the record is read from its exact JSON."""


def page_tables(layout: Layout, name: str, documents: KeySet, run_id: str) -> Iterator[pa.Table]:
    """Stream those rows of a file of `pages` that are of some documents, or of a run, as rows of
    `PAGE_ROWS`. Of row groups without any, no more is read than these two columns."""
    with opened(layout, name) as file:
        for group in range(file.num_row_groups):
            owners = file.read_row_group(group, columns=["document_id", "run_id"])
            wanted = documents.mask(column_keys(owners["document_id"].combine_chunks()))
            wanted |= pc.equal(owners["run_id"], run_id).to_numpy()
            start = 0
            for batch in _batches(file, group) if wanted.any() else ():
                mask = pa.array(wanted[start : start + batch.num_rows])
                start += batch.num_rows
                rows = batch.filter(mask)
                columns: list[Any] = [rows[column] for column in _PAGE_COLUMNS]
                yield pa.table([*columns, pc.is_valid(rows["record"])], schema=PAGE_ROWS)


def _batches(file: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
    columns = [*_PAGE_COLUMNS, "record"]
    yield from file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns)


class PageRows:
    """The live ones of one bucket's rows of pages, by document; rows come oldest first."""

    def __init__(self, table: pa.Table) -> None:
        identities = (table[name].combine_chunks() for name in ("document_id", "page_numbers"))
        (live,) = live_rows([RowPages.of(*identities)])
        table = table.filter(pa.array(live))
        self._columns = {name: table[name].to_pylist() for name in table.column_names}
        self._by_document: dict[str, dict[tuple[int, ...], int]] = {}
        identity = zip(self._columns["document_id"], self._columns["page_numbers"], strict=True)
        for index, (document_id, page_numbers) in enumerate(identity):
            self._by_document.setdefault(document_id, {})[tuple(page_numbers)] = index

    def documents(self) -> list[str]:
        """Return the ids of the documents that have rows here."""
        return list(self._by_document)

    def page_numbers(self, document_id: str, run_id: str | None = None) -> list[tuple[int, ...]]:
        """Return the page numbers of a document's rows in order; with a run, of its rows only."""
        rows = self._by_document.get(document_id, {})
        return sorted(
            numbers
            for numbers, index in rows.items()
            if run_id is None or self._columns["run_id"][index] == run_id
        )

    def result(self, document_id: str, page_numbers: tuple[int, ...]) -> PageResult:
        """Return one row."""
        index = self._by_document[document_id][page_numbers]
        row = {name: values[index] for name, values in self._columns.items()}
        failure = None
        if row["failure_kind"] is not None:
            failure = Failure(
                StageName(row["failure_stage"]),
                FailureKind(row["failure_kind"]),
                row["failure_message"],
                row["attempts"],
            )
        return PageResult(
            id=SampleId(document_id, row["uri"], row["n_pages"], page_numbers),
            state=State(row["state"]),
            failure=failure,
            record=loads(row["record_json"]) if row["has_record"] else None,
            record_json=row["record_json"],
            attempts=row["attempts"],
        )
