"""Grouping rows by document without holding them: spilled to local files, read back in parts."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

ROWS_PER_BUCKET = 100_000
"""What one bucket holds on average: some 200 MB of rows with a kilobyte each."""

_MAX_BUCKETS = 200  # a file each stays open while spilling
_SPILL_ROWS = 1 << 16
_SPILL_BYTES = 64 << 20


def bucket_count(n_rows: int) -> int:
    """Return how many buckets that many rows need."""
    return min(_MAX_BUCKETS, 1 + n_rows // ROWS_PER_BUCKET)


class Buckets:
    """Rows in files by a hash of their `document_id`, each bucket in the order of arrival.

    A context manager: write inside it, `read` after it.
    """

    def __init__(self, folder: Path, schema: pa.Schema, n_buckets: int) -> None:
        self._paths = [folder / f"{bucket:03}.arrows" for bucket in range(n_buckets)]
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._n_rows = self._n_bytes = 0  # of what waits
        self._open = ExitStack()
        self._writers: list[Any] = []

    def __enter__(self) -> Self:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            sink = self._open.enter_context(pa.OSFile(str(path), "wb"))
            writer = pa.ipc.new_stream(sink, self._schema, options=options)
            self._writers.append(self._open.enter_context(writer))
        return self

    def __exit__(self, *error: Any) -> None:
        with _named(self._paths[0].parent):
            if error[0] is None:
                self._spill()
            self._open.close()

    def __iter__(self) -> Iterator[pa.Table]:
        """Read the buckets one by one."""
        for path in self._paths:
            with pa.OSFile(str(path), "rb") as source:
                yield pa.ipc.open_stream(source).read_all()

    def write(self, table: pa.Table) -> None:
        """Add rows; none may have a null `document_id`."""
        self._waiting.append(table)
        self._n_rows += table.num_rows
        self._n_bytes += table.nbytes
        if self._n_rows >= _SPILL_ROWS or self._n_bytes >= _SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        self._n_rows = self._n_bytes = 0
        n_buckets = len(self._paths)
        hashes = [zlib.crc32(name.encode()) for name in table["document_id"].to_pylist()]
        buckets = np.array(hashes, dtype=np.uint32) % n_buckets
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(n_buckets), side="right")
        grouped = table.take(pa.array(order))
        start = 0
        with _named(self._paths[0].parent):
            for writer, end in zip(self._writers, ends.tolist(), strict=True):
                writer.write_table(grouped.slice(start, end - start))
                start = end


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Say which folder an error of the disk is about, and how to mend it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        what = f"{os.strerror(error.errno)} for temporary files; set TMPDIR to a larger disk"
        raise OSError(error.errno, what, str(folder)) from error
