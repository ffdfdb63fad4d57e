"""Hive-style folders of `documents`: which one a row goes to, and sorting rows by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import JobError

SOURCE: Final = "source."
"""How a column is written that is one of the manifest's."""

NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
"""The folder of rows that have no value, as Hive and its readers write it."""

MAX_FOLDERS: Final = 1000
"""The most folders that one run writes to."""

_NAME_BYTES = 255  # of a file or folder, on any disk
_PATH_BYTES = 700  # of all folders of a row: a store's key has 1,024 for everything
_WAITING_BYTES = 128 << 20


class Folders:
    """The folders, such as `source.customer=ACME/state=ok`, of the rows that go by.

    `names` has those met so far, in that order; without columns, it is one without a name.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.names: dict[str, int] = {}
        self._columns = columns

    def of(self, table: pa.Table) -> NDArray[np.int32]:
        """Return the number of each row's folder, in `names`.

        Raises
        ------
        JobError
            If there are too many folders, or a value is too long to name one.
        """
        steps = [_steps(table, column) for column in self._columns]
        if not steps:
            self.names.setdefault("", 0)
            return np.zeros(table.num_rows, np.int32)
        found = pc.binary_join_element_wise(*steps, "/").dictionary_encode()
        for name in found.dictionary.to_pylist():
            if len(name) > _PATH_BYTES:
                raise JobError(
                    f"output.partition_by: {name[:40]}... is too long to name folders "
                    f"({len(name)} bytes, at most {_PATH_BYTES}); take fewer columns"
                )
            self.names.setdefault(name, len(self.names))
        if len(self.names) > MAX_FOLDERS:
            raise JobError(
                f"output.partition_by: {', '.join(self._columns)} would make more than "
                f"{MAX_FOLDERS:,} partitions in one run; take columns with fewer values"
            )
        numbers = np.array([self.names[n] for n in found.dictionary.to_pylist()], np.int32)
        of_rows: NDArray[np.int32] = numbers[found.indices.to_numpy()]
        return of_rows


class SortedRows:
    """Rows sorted by folder: 128 MiB of them wait in memory, the others in files in `scratch`."""

    def __init__(self, columns: Sequence[str], scratch: Path) -> None:
        self.folders = Folders(columns)
        self._scratch = scratch
        self._waiting: list[tuple[pa.Table, NDArray[np.int32]]] = []
        self._bytes = 0

    def add(self, table: pa.Table) -> None:
        """Take rows in. Raises JobError as `Folders.of` does."""
        self._waiting.append((table, self.folders.of(table)))
        self._bytes += table.nbytes
        if self._bytes >= _WAITING_BYTES:
            self._spill()

    def take(self) -> Iterator[tuple[str, Iterator[pa.Table]]]:
        """Yield each folder with its rows; once, and to be read in this order."""
        rest = self._sorted()
        for folder, number in self.folders.names.items():
            yield folder, self._rows(number, rest)

    def _rows(self, number: int, rest: dict[int, pa.Table]) -> Iterator[pa.Table]:
        file = self._file(number)
        if file.exists():
            with file.open("rb") as stream:
                end = file.stat().st_size
                while stream.tell() < end:
                    with pa.ipc.open_stream(stream) as one:
                        yield one.read_all()
            file.unlink()
        if number in rest:
            yield rest[number]

    def _sorted(self) -> dict[int, pa.Table]:
        """Return the rows that wait, by their folder's number; none wait after."""
        if not self._waiting:
            return {}
        table = pa.concat_tables([one for one, _ in self._waiting])
        numbers = np.concatenate([one for _, one in self._waiting])
        self._waiting, self._bytes = [], 0
        order = np.argsort(numbers, kind="stable")
        table = table.take(pa.array(order))
        found, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
        places = zip(found.tolist(), starts.tolist(), counts.tolist(), strict=True)
        return {number: table.slice(start, count) for number, start, count in places}

    def _spill(self) -> None:
        self._scratch.mkdir(exist_ok=True)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for number, rows in self._sorted().items():
            with (
                self._file(number).open("ab") as stream,
                pa.ipc.new_stream(stream, rows.schema, options=options) as writer,
            ):
                writer.write_table(rows)

    def _file(self, number: int) -> Path:
        return self._scratch / f"{number}.arrows"


def folder_of(file: str) -> str:
    """Return the folder, below `documents`, that a file lies in."""
    return "/".join(file.split("/")[1:-1])


def fits(file: str, columns: Sequence[str]) -> bool:
    """Return True if a file of `documents` lies where rows partitioned by `columns` do."""
    steps = folder_of(file).split("/") if folder_of(file) else []
    return [step.partition("=")[0] for step in steps] == list(columns)


def sources(columns: Sequence[str]) -> tuple[str, ...]:
    """Return those of the columns that are a manifest's."""
    return tuple(column for column in columns if column.startswith(SOURCE))


def check_manifest(columns: Sequence[str], manifest: Sequence[str]) -> None:
    """Raise JobError if a column is to be the manifest's, and the manifest has no such column."""
    for column in sources(columns):
        if column.removeprefix(SOURCE) not in manifest:
            there = f"it has {', '.join(manifest)}" if manifest else "there is none, or it has none"
            raise JobError(
                f"output.partition_by: {column}: the manifest has no column "
                f"'{column.removeprefix(SOURCE)}' beside the uri ({there}); mend or remove it"
            )


def _steps(table: pa.Table, column: str) -> pa.Array:
    """Return the folder of each row for one of the columns."""
    if column.startswith(SOURCE):
        values = pc.map_lookup(table["source"], column.removeprefix(SOURCE), "first")
    else:
        values = table[column]
    values = pa.chunked_array(values.chunks, pa.string()).combine_chunks()
    found = values.dictionary_encode("encode")
    names = pa.array([_step(column, one) for one in found.dictionary.to_pylist()], pa.string())
    return names.take(found.indices)


def _step(column: str, value: str | None) -> str:
    step = f"{column}={quote(value, safe='') if value else NO_VALUE}"
    if len(step) > _NAME_BYTES:
        raise JobError(
            f"output.partition_by: {column}: the value {value!r:.40}... is too long to name a "
            f"folder ({len(step)} bytes, at most {_NAME_BYTES}); take another column"
        )
    return step
