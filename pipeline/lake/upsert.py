"""Bringing an output's documents into a table: compared by digests, changed in one snapshot.

The key is (`uri`, `schema_id`). Comparing reads three narrow columns. What is new or changed is
written into new data files; files that hold superseded rows are written again without them; one
commit swaps them. Whoever commits in between makes it start over. Memory holds 33 bytes for each
document of the output, 24 for each row of the table that is one of them, and a few row groups.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import ConservationError, OutputError, RunError
from pipeline.lake.columns import misfits
from pipeline.lake.keys import Keys, KeySet, as_array, digest_keys, last_places, text_key
from pipeline.lake.lake_table import COMMIT, ConflictError, LakeTable, TableFile
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import BATCH_ROWS, KEY_ROWS, opened
from pipeline.lake.tables import DIGEST, with_digests

KEY_COLUMNS: Final = ("uri", "schema_id", DIGEST)

_ATTEMPTS = 6
_PAUSE_S = 0.5
_SMALL_BYTES = 32 << 20
_SMALL_FILES = 32
"""A table with more small files than this has them joined by the next run that writes to it."""


@dataclass(frozen=True, slots=True)
class Upserted:
    """What a table's rows came to. `snapshot` is the newest one: of this run, if `committed`."""

    table: str
    snapshot: str | None
    committed: bool
    inserted: int
    replaced: int
    unchanged: int
    rows: int
    """Of the whole table."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The files of an output's documents, and what to find them by in a table."""

    layout: Layout
    files: tuple[str, ...]
    schema: pa.Schema
    keys: KeySet = field(repr=False)
    places: NDArray[np.int64] = field(repr=False)
    """The number of the row that has a member of `keys`."""
    digests: Keys = field(repr=False)

    @classmethod
    def of(cls, layout: Layout, files: Sequence[str], schema: pa.Schema) -> Documents:
        """Read what identifies the rows. Raises ConservationError if two have one key."""
        keys, digests = [as_array([])], [as_array([])]
        for name in files:
            for batch in _digested(layout, name, KEY_COLUMNS, KEY_ROWS):
                keys.append(row_keys(batch))
                digests.append(digest_keys(batch[DIGEST]))
        every = np.concatenate(keys)
        members = KeySet(every)
        if members.doubled():
            raise ConservationError(f"{members.doubled()} documents are there more than once")
        return cls(
            layout, tuple(files), schema, members, last_places(every), np.concatenate(digests)
        )

    def rows(self, wanted: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
        """Stream the rows that a mask of all of them picks."""
        start = 0
        for name in self.files:
            for batch in _digested(self.layout, name):
                yield batch.filter(pa.array(wanted[start : start + batch.num_rows]))
                start += batch.num_rows


def _digested(
    layout: Layout, name: str, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Stream a file's rows; a version that knew no digests wrote rows that have none."""
    with opened(layout, name) as file:
        if DIGEST in file.schema_arrow.names:
            yield from file.iter_batches(batch_rows, columns=columns)
            return
        for batch in file.iter_batches(BATCH_ROWS):
            rows = with_digests(pa.Table.from_batches([batch]))
            yield from rows.select(columns or rows.column_names).to_batches()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to do: the documents to write, and of each file to replace, the rows to leave out."""

    write: NDArray[np.bool_]
    drop: Mapping[TableFile, NDArray[np.int64]]
    inserted: int
    replaced: int

    @property
    def dropped(self) -> int:
        """How many rows of the table are superseded."""
        return sum(len(places) for places in self.drop.values())


def row_keys(batch: pa.RecordBatch) -> Keys:
    """Return the key of (`uri`, `schema_id`) of every row."""
    pairs = zip(batch["uri"].to_pylist(), batch["schema_id"].to_pylist(), strict=True)
    return as_array(text_key(f"{uri}\0{schema_id}") for uri, schema_id in pairs)


def load_checked(table: LakeTable, documents: pa.Schema) -> pa.Schema | None:
    """Load a table and return its columns, None if there is none yet.

    Raises
    ------
    OutputError
        If it cannot be written to, or cannot hold the documents' columns.
    """
    table.refuse(documents)
    columns = table.load()
    if columns is not None:
        for one in misfits(columns, documents, may_widen=table.may_widen):
            raise OutputError(
                f"{table.label}: {one.path} is {one.in_table} in the table and {one.in_documents} "
                "in the job's schema; choose another output.table"
            )
    return columns


def upsert(
    table: LakeTable, documents: Documents, properties: Callable[[Plan], Mapping[str, str]]
) -> Upserted:
    """Bring documents into a table in one snapshot; in none if nothing is new or changed.

    `properties` are kept with the snapshot.

    Raises
    ------
    OutputError
        If the table cannot hold the documents.
    ConservationError
        If the staged files, or the table afterwards, do not hold the rows they must.
    RunError
        If others keep committing in between.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0.5, 1.5) * _PAUSE_S * 2**attempt)
        load_checked(table, documents.schema)
        files = table.files()
        plan = compare(table, files, documents)
        n_before = sum(file.n_rows for file in files)
        if not plan.write.any():
            return _result(table, documents, plan, table.snapshot(), n_before, committed=False)
        try:
            snapshot = _replace(table, documents, plan, properties(plan))
        except ConflictError:
            continue
        n_rows = n_before - plan.dropped + int(np.count_nonzero(plan.write))
        _require(table, "the new snapshot", n_rows, table.rows(snapshot))
        return _result(table, documents, plan, snapshot, n_rows, committed=True)
    raise RunError(
        f"{table.label}: others committed to it {_ATTEMPTS} times in between; the output itself is "
        "finished: run again when it is quieter to bring the table up to date"
    )


def compare(table: LakeTable, files: Sequence[TableFile], documents: Documents) -> Plan:
    """Find out which documents the table lacks, and which of its rows they supersede."""
    size = len(documents.digests)
    times = np.zeros(size, np.uint8)  # that the table has a document: 2 stands for more
    changed = np.zeros(size, np.bool_)
    matches: dict[TableFile, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for file in files if size else ():
        places, rows, start = [], [], 0
        for batch in table.read(file, KEY_COLUMNS):
            found = documents.keys.find(row_keys(batch))
            here = np.flatnonzero(found >= 0)
            row = documents.places[found[here]]
            changed[row[digest_keys(batch[DIGEST])[here] != documents.digests[row]]] = True
            # A key that the table has twice, by somebody else's doing, is mended: one row stays.
            changed[row[times[row] > 0]] = True
            some, n_times = np.unique(row, return_counts=True)
            times[some] = np.minimum(times[some] + n_times, 2)
            places.append(here + start)
            rows.append(row)
            start += batch.num_rows
        if start != file.n_rows:
            raise ConservationError(
                f"{table.label}: {file.path} has {start} rows and {file.n_rows} by the metadata"
            )
        if places and any(len(some) for some in places):
            matches[file] = (np.concatenate(places), np.concatenate(rows))
    changed |= times > 1
    drop = {
        file: places[changed[rows]]
        for file, (places, rows) in matches.items()
        if changed[rows].any()
    }
    write = changed | (times == 0)
    if write.any():
        small = [file for file in files if file.n_bytes < _SMALL_BYTES]
        if len(small) > _SMALL_FILES:
            drop = {**{file: np.zeros(0, np.int64) for file in small}, **drop}
    return Plan(write, drop, int(np.count_nonzero(times == 0)), int(np.count_nonzero(changed)))


def _replace(
    table: LakeTable,
    documents: Documents,
    plan: Plan,
    properties: Mapping[str, str],
) -> str:
    """Stage the new files, count their rows and commit."""
    table.prepare(documents.schema)
    staged = table.write(_rows(table, documents, plan))
    expected = sum(file.n_rows for file in plan.drop) - plan.dropped
    expected += int(np.count_nonzero(plan.write))
    try:
        _require(table, "the staged files", expected, sum(file.n_rows for file in staged))
        mark = {COMMIT: secrets.token_hex(8)}
        return table.commit(staged, list(plan.drop), {**properties, **mark})
    except (ConflictError, ConservationError):
        _discard(table, staged)
        raise


def _discard(table: LakeTable, staged: Sequence[TableFile]) -> None:
    """Delete staged files, once the newest snapshot is seen not to name them."""
    with suppress(Exception):  # of any client; what stays is invisible, and no harm
        table.load()
        named = {file.path for file in table.files()}
        table.discard(file for file in staged if file.path not in named)


def _rows(table: LakeTable, documents: Documents, plan: Plan) -> Iterator[pa.RecordBatch]:
    for file, places in plan.drop.items():
        kept = np.ones(file.n_rows, np.bool_)
        kept[places] = False
        start = 0
        for batch in table.read(file):
            yield batch.filter(pa.array(kept[start : start + batch.num_rows]))
            start += batch.num_rows
    yield from documents.rows(plan.write)


def _require(table: LakeTable, what: str, expected: int, found: int) -> None:
    if found != expected:
        raise ConservationError(f"{table.label}: {what} must hold {expected} rows: {found} do")


def _result(
    table: LakeTable,
    documents: Documents,
    plan: Plan,
    snapshot: str | None,
    n_rows: int,
    *,
    committed: bool,
) -> Upserted:
    return Upserted(
        table=table.name,
        snapshot=snapshot,
        committed=committed,
        inserted=plan.inserted,
        replaced=plan.replaced,
        unchanged=len(documents.digests) - plan.inserted - plan.replaced,
        rows=n_rows,
    )
