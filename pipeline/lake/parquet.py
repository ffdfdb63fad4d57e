"""Parquet files, written the way the tables are read: by document, and by a plain glob."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import OutputError, one_line
from pipeline.lake.keys import Keys, KeySet, as_array, column_keys
from pipeline.lake.layout import Layout
from pipeline.lake.row_pages import RowPages, live_rows

ROWS_PER_GROUP = 20_000
"""Small enough that a point lookup by document_id reads little."""

FILE_BYTES = 256 << 20
"""A compacted file ends with the row group that takes it past this size."""

SMALL_FILE_BYTES = 128 << 20
"""A compacted file of this size is left as it is while it loses no row, a smaller one until there
is half as much that is newer."""

TINY_FILE_BYTES = 4 << 20
"""A compacted file up to this size is rewritten with the next run's rows: it costs next to nothing.
"""

_GROUP_BYTES = 128 << 20
KEY_ROWS = 1 << 16
"""How many rows to read at a time where a few narrow columns are all that is wanted."""

Mask = NDArray[np.bool_]
"""Which rows of a file are meant."""

BATCH_ROWS = 4096
_FALSE_POSITIVES = 0.01


def write_table(layout: Layout, name: str, table: pa.Table) -> None:
    """Write a table as one file, in one atomic step."""
    with layout.write(name) as stream, _writer(stream, table.schema, table.num_rows) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)


def write_tables(
    layout: Layout, prefix: str, schema: pa.Schema, tables: Iterable[pa.Table]
) -> list[str]:
    """Write a stream of tables as files `{prefix}-{part:05}.parquet`, and return their names.

    Every table has the columns of `schema`. No rows, no file. Memory holds one row group.
    """
    files: list[str] = []
    groups = row_groups(tables)
    group = next(groups, None)
    while group is not None:
        name = f"{prefix}-{len(files):05}.parquet"
        with layout.write(name) as stream, _writer(stream, schema, group.num_rows) as writer:
            while group is not None and stream.tell() < FILE_BYTES:
                writer.write_table(group, row_group_size=ROWS_PER_GROUP)
                group = next(groups, None)
        files.append(name)
    return files


def read_batches(
    layout: Layout,
    name: str,
    columns: Sequence[str] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Stream a file's rows in order, all columns or some, never the whole file at once."""
    with opened(layout, name) as file:
        yield from file.iter_batches(batch_rows, columns=columns)


@contextmanager
def opened(layout: Layout, name: str) -> Iterator[pq.ParquetFile]:
    """Open a committed file to read.

    Raises
    ------
    OutputError
        If the file is gone, or turns out to be damaged while it is read.
    """
    try:
        with layout.open_input(name) as stream, pq.ParquetFile(stream) as file:
            yield file
    except FileNotFoundError as error:
        raise OutputError(
            f"output {layout.uri}: {name} is gone, and the manifest names it; put a copy back, or "
            "start over with --fresh"
        ) from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or layout.local(name) is None):
            raise  # the disk's or the store's fault, not the file's
        raise OutputError(
            f"output {layout.uri}: {name} is damaged ({one_line(error)}); put a copy back, or "
            "delete it and run again, with --fresh if it is missed then"
        ) from error


def count_rows(layout: Layout, files: Iterable[str]) -> int:
    """Return the number of rows in files, from their footers."""
    total = 0
    for name in files:
        with opened(layout, name) as file:
            total += file.metadata.num_rows
    return total


def footer_rows(stream: Any) -> int:
    """Return how many rows a Parquet file has, by its own footer."""
    return int(pq.read_metadata(stream).num_rows)


def count_values(layout: Layout, files: Iterable[str], column: str) -> dict[str, int]:
    """Count the values of a column over files, as text; nulls and zeros are left out."""
    counts: Counter[str] = Counter()
    for name in files:
        for batch in read_batches(layout, name, [column], KEY_ROWS):
            found = pc.value_counts(batch[column]).to_pylist()
            counts.update({str(one["values"]): one["counts"] for one in found if one["values"]})
    return dict(counts)


def document_keys(layout: Layout, files: Iterable[str]) -> Keys:
    """Return the keys of the document ids of files, in order; nulls are left out."""
    keys = [
        column_keys(batch["document_id"].drop_null())
        for name in files
        for batch in read_batches(layout, name, ["document_id"], KEY_ROWS)
    ]
    return np.concatenate([as_array([]), *keys])


def compact(
    layout: Layout, files: Sequence[str], schema: pa.Schema, prefix: str, documents: KeySet
) -> tuple[list[str], int]:
    """Rewrite files of `pages` into few; return the names of all, and how many rows they must hold.

    `files` are of one fingerprint, oldest first. Live rows stay (see `row_pages`), if the document
    is one of `documents`. Files that lose no row are kept as they are, unless it is time to bring
    them together (`worth_rewriting`). Deletes nothing. The new files' names depend on `prefix` and
    the old names only, so a repeated compaction writes over an unfinished one and never over a file
    that it reads.
    """
    if not files:
        return [], 0
    live = live_rows([_pages_of(layout, name) for name in files])
    kept = [
        mask & documents.mask(document_keys(layout, [name]))
        for name, mask in zip(files, live, strict=True)
    ]
    n_kept = sum(int(np.count_nonzero(mask)) for mask in kept)
    rewritten = worth_rewriting(layout, dict(zip(files, kept, strict=True)))
    if len(rewritten) <= 1 and all(mask.all() for mask in rewritten.values()):
        return list(files), n_kept
    untouched = [name for name in files if name not in rewritten]
    new_prefix = f"{prefix}-{names_hash(rewritten)}"
    written = write_tables(layout, new_prefix, schema, rows_of(layout, rewritten))
    return untouched + written, n_kept


def worth_rewriting(layout: Layout, live: Mapping[str, Mask]) -> dict[str, Mask]:
    """Return, of files with their live rows, oldest first, those to write anew: they hold rows that
    are not live, or are small beside what is newer."""
    sizes = [layout.size(name) for name in live]
    merged = worth_merging(sizes, SMALL_FILE_BYTES, TINY_FILE_BYTES)
    return {
        name: mask
        for (name, mask), is_small in zip(live.items(), merged, strict=True)
        if is_small or not mask.all()
    }


def worth_merging(sizes: Sequence[int], small: int, tiny: int) -> list[bool]:
    """Say which files, oldest first, are to become one with what is newer.

    A tiny one always is, and one that is smaller than `small` once it has at most twice the size of
    all small ones that are newer. So a table that grows bit by bit has few files, a number that
    grows with the logarithm of `small` / `tiny`, and a row is written anew as often at most.
    """
    since, newer = len(sizes), 0
    for place in reversed(range(len(sizes))):
        if sizes[place] < small:
            if sizes[place] <= max(tiny, 2 * newer):
                since = place
            newer += sizes[place]
    return [size < small and place >= since for place, size in enumerate(sizes)]


def names_hash(names: Iterable[str]) -> str:
    """Return 16 hex digits that stand for a sequence of file names."""
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def _pages_of(layout: Layout, name: str) -> RowPages:
    batches = read_batches(layout, name, ["document_id", "page_numbers"], KEY_ROWS)
    return RowPages.joined(RowPages.of(one["document_id"], one["page_numbers"]) for one in batches)


def rows_of(layout: Layout, files: Mapping[str, Mask]) -> Iterator[pa.Table]:
    """Stream the rows of files that their masks let through."""
    for name, mask in files.items():
        start = 0
        for batch in read_batches(layout, name):
            wanted = pa.array(mask[start : start + batch.num_rows])
            start += batch.num_rows
            yield pa.Table.from_batches([batch]).filter(wanted)


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join and cut tables to `ROWS_PER_GROUP` rows, or fewer when the rows are large."""
    waiting: list[pa.Table] = []
    n_rows = n_bytes = 0
    for table in tables:
        waiting.append(table)
        n_rows += table.num_rows
        n_bytes += table.nbytes
        if n_rows >= ROWS_PER_GROUP or n_bytes >= _GROUP_BYTES:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROWS_PER_GROUP)
            rest = whole.slice(ROWS_PER_GROUP)
            waiting, n_rows, n_bytes = [rest], rest.num_rows, rest.nbytes
    if n_rows:
        yield pa.concat_tables(waiting)


def _writer(stream: Any, schema: pa.Schema, n_rows: int) -> pq.ParquetWriter:
    """Open a writer whose bloom filters fit row groups of `n_rows`, at most `ROWS_PER_GROUP`."""
    distinct = max(1, min(n_rows, ROWS_PER_GROUP))
    return pq.ParquetWriter(
        stream,
        schema,
        compression="zstd",
        write_statistics=True,
        bloom_filter_options={"document_id": {"ndv": distinct, "fpp": _FALSE_POSITIVES}},
    )
