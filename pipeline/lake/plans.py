"""The run's own papers as Arrow tables: listed documents, their plans, and the shards of work.

They say what a run means to do, before it does it. The published tables are in
`pipeline.lake.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lake.layout import RUNS, Layout
from pipeline.lake.stores import Stores
from pipeline.records import (
    Document,
    Failure,
    FailureKind,
    MediaType,
    Plan,
    Shard,
    StageName,
    Window,
)

T = TypeVar("T")

_DOCUMENT = [
    pa.field("uri", pa.string(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("modified", pa.string(), nullable=False),
    pa.field("media_type", pa.string(), nullable=False),
    pa.field("source", pa.map_(pa.string(), pa.string()), nullable=False),
]
FAILURE = pa.struct(
    [
        ("stage", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("attempt", pa.int32()),
    ]
)
_WINDOW = pa.struct(
    [
        ("document_id", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.string()),
        ("n_pages", pa.int32()),
        ("page_numbers", pa.list_(pa.int32())),
        ("source", pa.map_(pa.string(), pa.string())),
    ]
)
DOCUMENTS_LISTED = pa.schema(_DOCUMENT)
PLANS = pa.schema(
    [
        *_DOCUMENT,
        pa.field("document_id", pa.string()),
        pa.field("n_pages", pa.int32()),
        pa.field("page_numbers", pa.list_(pa.int32()), nullable=False),
        pa.field("failure", FAILURE),
    ]
)
SHARDS = pa.schema([pa.field("windows", pa.list_(_WINDOW), nullable=False)])

ROWS_PER_GROUP = 1024


def documents_table(documents: Sequence[Document]) -> pa.Table:
    """Return documents as rows of `DOCUMENTS_LISTED`."""
    return pa.Table.from_pylist([_document_row(d) for d in documents], schema=DOCUMENTS_LISTED)


def documents_of(table: pa.Table) -> list[Document]:
    """Read rows of `documents_table` back."""
    return [_document(row) for row in table.to_pylist(maps_as_pydicts="strict")]


def plans_table(plans: Sequence[Plan]) -> pa.Table:
    """Return plans as rows of `PLANS`."""
    rows = [
        {
            **_document_row(plan.document),
            "document_id": plan.document_id,
            "n_pages": plan.n_pages,
            "page_numbers": plan.page_numbers,
            "failure": failure_row(plan.failure),
        }
        for plan in plans
    ]
    return pa.Table.from_pylist(rows, schema=PLANS)


def plans_of(table: pa.Table) -> list[Plan]:
    """Read rows of `plans_table` back."""
    return [
        Plan(
            document=_document(row),
            document_id=row["document_id"],
            n_pages=row["n_pages"],
            page_numbers=tuple(row["page_numbers"]),
            failure=failure_of(row["failure"]),
        )
        for row in table.to_pylist(maps_as_pydicts="strict")
    ]


def shards_table(shards: Sequence[Shard]) -> pa.Table:
    """Return shards as rows of `SHARDS`."""
    rows = [{"windows": [asdict(window) for window in shard.windows]} for shard in shards]
    return pa.Table.from_pylist(rows, schema=SHARDS)


def shards_of(table: pa.Table) -> list[Shard]:
    """Read rows of `shards_table` back."""
    return [
        Shard(
            tuple(
                Window(**{**window, "page_numbers": tuple(window["page_numbers"])})
                for window in row["windows"]
            )
        )
        for row in table.to_pylist(maps_as_pydicts="strict")
    ]


def failure_row(failure: Failure | None) -> dict[str, Any] | None:
    """Return a failure as a value of the Arrow struct `FAILURE`."""
    return None if failure is None else asdict(failure)


def failure_of(row: Mapping[str, Any] | None) -> Failure | None:
    """Read a value of `FAILURE` back."""
    if row is None:
        return None
    return Failure(
        StageName(row["stage"]), FailureKind(row["kind"]), row["message"], row["attempt"]
    )


def run_file(run_id: str, name: str) -> str:
    """Return the path in the output of a run's file `name`."""
    return f"{RUNS}/{run_id}/{name}.parquet"


def forget_run(layout: Layout, run_id: str) -> None:
    """Delete a run's papers, as if it had never been."""
    folder = f"{RUNS}/{run_id}"
    for name in layout.list(folder):
        layout.delete(name)
    local = layout.local(folder)
    if local is not None:
        with suppress(OSError):  # it is not there, or somebody put something into it
            local.rmdir()


@contextmanager
def row_writer(
    layout: Layout, path: str, schema: pa.Schema
) -> Iterator[Callable[[pa.Table], None]]:
    """Open one of a run's files, and give what writes tables of any size to it.

    Row groups are of `ROWS_PER_GROUP` rows, the last one aside.
    """
    waiting = schema.empty_table()
    with layout.write(path) as stream, pq.ParquetWriter(stream, schema) as writer:

        def write(table: pa.Table) -> None:
            nonlocal waiting
            waiting = pa.concat_tables([waiting, table.cast(schema)])
            whole = waiting.num_rows - waiting.num_rows % ROWS_PER_GROUP
            if whole:
                writer.write_table(waiting.slice(0, whole), row_group_size=ROWS_PER_GROUP)
                waiting = waiting.slice(whole)

        yield write
        if waiting.num_rows:
            writer.write_table(waiting)


def write_rows(layout: Layout, run_id: str, name: str, tables: Iterable[pa.Table]) -> str:
    """Stream tables of one schema into the run's file `name`; return its path in the output.

    There is at least one table, and it may be empty.
    """
    path = run_file(run_id, name)
    pieces = iter(tables)
    first = next(pieces)
    with row_writer(layout, path, first.schema) as write:
        write(first)
        for piece in pieces:
            write(piece)
    return path


def read_rows(
    layout: Layout, path: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Stream a file of `write_rows` back, all columns or some, some thousand rows at a time."""
    with layout.open_input(path) as stream, pq.ParquetFile(stream) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns):
            yield pa.Table.from_batches([batch])


def count_rows(layout: Layout, path: str) -> int:
    """Return how many rows a file of `write_rows` has."""
    n_rows: int = _opened(layout.uri, layout.stores, path).metadata.num_rows
    return n_rows


def read_slice(layout: Layout, path: str, start: int, stop: int) -> pa.Table:
    """Return the rows from `start` up to `stop` of a file of `write_rows`."""
    first, last = start // ROWS_PER_GROUP, (stop - 1) // ROWS_PER_GROUP
    groups = _opened(layout.uri, layout.stores, path).read_row_groups(list(range(first, last + 1)))
    return groups.slice(start - first * ROWS_PER_GROUP, stop - start)


@lru_cache(maxsize=2)
def _opened(uri: str, stores: Stores, path: str) -> pq.ParquetFile:
    """A process that reads one slice reads more: the footer is parsed once."""
    return pq.ParquetFile(Layout.open(uri, stores).open_input(path))


def chunks(items: Iterable[T], size: int = ROWS_PER_GROUP) -> Iterator[list[T]]:
    """Cut a stream into lists of at most `size`; one empty list if there is nothing."""
    stream = iter(items)
    chunk = list(islice(stream, size))
    yield chunk
    while chunk := list(islice(stream, size)):
        yield chunk


def _document_row(document: Document) -> dict[str, Any]:
    return {
        "uri": document.uri,
        "size": document.size,
        "modified": document.modified,
        "media_type": document.media_type,
        "source": dict(document.source),
    }


def _document(row: Mapping[str, Any]) -> Document:
    return Document(
        uri=row["uri"],
        size=row["size"],
        modified=row["modified"],
        media_type=MediaType(row["media_type"]),
        source=row["source"],
    )
