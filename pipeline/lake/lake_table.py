"""A table of a lake format, as publishing needs it: what Iceberg and Delta Lake have in common.

Both keep rows in immutable Parquet files and swap the list of them in one atomic commit. So one way
of upserting (`pipeline.lake.upsert`) serves both, and a format says how files are listed, read,
written and committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lake.parquet import FILE_BYTES, ROWS_PER_GROUP, row_groups

COMMIT = "pagelake.commit"
"""The property of a snapshot that tells whose commit it is, should the answer to it be lost."""

RUN = "pagelake.run_id"
"""The property of a snapshot that tells which run of pagelake made it."""


class ConflictError(Exception):
    """Somebody else has committed since the table was loaded; nothing of ours has been."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A data file: `handle` is what the format's own library knows it by."""

    path: str
    n_rows: int
    n_bytes: int
    handle: Any = None


class LakeTable(Protocol):
    """A table, as it was when it was last loaded.

    `name` is its name or URI, and `label` how messages call it;
    `may_widen`, whether columns may become wider.
    """

    name: str
    label: str
    may_widen: bool

    def load(self) -> pa.Schema | None:
        """Look at the newest snapshot; return its columns, None if there is no such table.

        Raises
        ------
        OutputError
            If there is one that cannot be written to.
        """
        ...

    def refuse(self, documents: pa.Schema) -> None:
        """Raise OutputError if the format cannot hold such columns at all."""
        ...

    def identity(self) -> str | None:
        """Return what tells the table loaded from any other, also from one made anew in its place.

        None if there is none.
        """
        ...

    def snapshot(self) -> str | None:
        """Return the id of the snapshot loaded, None if there is none."""
        ...

    def told(self) -> Iterator[Mapping[str, Any]]:
        """Yield what was kept with snapshots, the newest first, as far back as is known."""
        ...

    def files(self) -> list[TableFile]:
        """Return the data files of the snapshot loaded."""
        ...

    def read(self, file: TableFile, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Stream record batches of a file in order; of columns that it lacks, nulls."""
        ...

    def prepare(self, documents: pa.Schema) -> None:
        """Make the table, or let it have what it lacks of the documents' columns."""
        ...

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[TableFile]:
        """Write rows into new data files, which no reader sees."""
        ...

    def commit(
        self,
        added: Sequence[TableFile],
        removed: Sequence[TableFile],
        properties: Mapping[str, str],
    ) -> str:
        """Swap data files in one step, and return the new snapshot's id.

        Raises
        ------
        ConflictError
            If it did not happen, because the table is not as it was when it was loaded.
        """
        ...

    def rows(self, snapshot: str) -> int:
        """Count the rows of a snapshot, from what the table's metadata says of each data file."""
        ...

    def discard(self, files: Iterable[TableFile]) -> None:
        """Delete files that were written and never committed."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def write_rolling(
    create: Any, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[str]:
    """Write rows into files of about `FILE_BYTES` and yield their paths, each when it is complete.

    `create()` returns a new file's path and the stream to write it to. No rows, no file. Memory
    holds one row group.
    """
    groups = row_groups(pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)
    group = next(groups, None)
    while group is not None:
        path, opened = create()
        with opened as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            while group is not None and stream.tell() < FILE_BYTES:
                writer.write_table(group, row_group_size=ROWS_PER_GROUP)
                group = next(groups, None)
        yield path


def delete_quietly(delete: Any, files: Iterable[TableFile]) -> None:
    """Delete files by a function of their path: one that stays is invisible, and no harm."""
    for file in files:
        with suppress(OSError):
            delete(file.path)
