"""What earlier runs found out about documents, so that no file is read twice.

Every plan file, `_pagelake/runs/{run}/plans.parquet`, has beside the plans themselves a key of each
document's uri, size and modification time, and says for which fingerprint it was made. A run reads
the keys of all plan files there are, those of killed runs too, and takes over the plans of the
documents that it lists again unchanged. What it does not list stays known: a finishing run names in
the manifest, beside its own plans, files with those of all other documents, and deletes the rest.

These are of two kinds. The documents of some have their rows in the table: those are plan files of
earlier runs, or `ingested.parquet`, into which a run brings together small ones and what it leaves
of others. The rest is only known, because the run that found it out never finished:
`known.parquet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import OutputError, one_line
from pipeline.lake.keys import Keys, KeySet, as_array, last_places, packed_keys, text_key, text_keys
from pipeline.lake.layout import RUNS, Layout
from pipeline.lake.parquet import KEY_ROWS, read_batches, worth_merging
from pipeline.lake.plans import PLANS, read_rows, row_writer, run_file
from pipeline.records import FailureKind

KNOWN = PLANS.append(pa.field("key", pa.binary(16), nullable=False))
"""A plan file's columns; `known_schema` adds for which fingerprint it is."""

_FOUND_OUT = ("document_id", "n_pages", "failure")
_FINGERPRINT = b"pagelake.fingerprint"
_ONLY_KNOWN = "/known.parquet"
_PLAN_FILES = ("/plans.parquet", "/ingested.parquet", _ONLY_KNOWN)
_METRICS = "/metrics.json"
_METRICS_KEPT = 99  # and those of the run that is about to end
_SMALL_ROWS = 1_000_000
_TINY_ROWS = 4096
_GROUPS_HELD = 8
_DAMAGE = (pa.ArrowException, ValueError, OSError)


def known_schema(fingerprint: str) -> pa.Schema:
    """Return the schema of the plan files of a fingerprint."""
    return KNOWN.with_metadata({_FINGERPRINT: fingerprint.encode()})


def version_keys(documents: pa.Table) -> Keys:
    """Return a key of uri, size and modification time for every row."""
    columns = (documents[name].to_pylist() for name in ("uri", "size", "modified"))
    return as_array(text_key("\0".join(map(str, row))) for row in zip(*columns, strict=True))


def tells_version(documents: pa.Table) -> NDArray[np.bool_]:
    """Say of which documents a listing tells a version."""
    has_size = pc.greater_equal(documents["size"], 0)
    told: NDArray[np.bool_] = pc.and_(has_size, pc.not_equal(documents["modified"], "")).to_numpy()
    return told


def with_keys(plans: pa.Table, keys: Keys | None = None) -> pa.Table:
    """Return rows of `PLANS` as rows of `KNOWN`."""
    found = version_keys(plans) if keys is None else keys
    column = pa.Array.from_buffers(pa.binary(16), len(found), [None, pa.py_buffer(found.tobytes())])
    return plans.append_column(KNOWN.field("key"), column)


class Known:
    """The plans that need not be made again, in 20 bytes a document. A context manager.

    With `retry` None, documents that could not be opened are not among them; with a set, those
    whose failure is of one of these kinds are not. Of several plans for one version of a document,
    the last run's is taken.
    """

    def __init__(
        self, layout: Layout, fingerprint: str, retry: frozenset[FailureKind] | None = None
    ) -> None:
        self._open = ExitStack()
        files = self._open.enter_context(_plan_files(layout, fingerprint))
        self._files = list(files.values())
        keys, rows, start = [as_array([])], [np.zeros(0, np.uint32)], 0
        for name, file in files.items():
            for batch in _batches(layout, name, file):
                usable = np.flatnonzero(_usable(batch, retry))
                keys.append(packed_keys(batch["key"])[usable])
                rows.append((start + usable).astype(np.uint32))
                start += batch.num_rows
        all_keys, all_rows = np.concatenate(keys), np.concatenate(rows)
        keys.clear()  # ten million are 160 MB, and sorting them wants as much again
        places = last_places(all_keys)
        self._rows = all_rows[places]
        self._keys = KeySet(all_keys[places])
        groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in groups]
        self._groups, self._starts = groups, np.cumsum([0, *sizes])
        # Listings keep their order, so a group that is needed is soon needed no more.
        self._group = lru_cache(_GROUPS_HELD)(self._read_group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, documents: pa.Table, keys: Keys) -> NDArray[np.int64]:
        """Return where the plans of listed documents are, -1 for those that are to be planned.

        What a store says neither size nor time of may have changed, so it is always planned.
        """
        place = self._keys.find(keys)
        found = (place >= 0) & tells_version(documents)
        rows = np.full(len(keys), -1, np.int64)
        rows[found] = self._rows[place[found]]
        return rows

    def found_out(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return `document_id`, `n_pages` and `failure` of plans that `find` found, in order."""
        if not len(rows):
            return _NOTHING
        group = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(group, kind="stable")
        numbers, firsts = np.unique(group[order], return_index=True)
        pieces = [
            self._group(number).take(rows[some] - self._starts[number])
            for number, some in zip(numbers.tolist(), np.split(order, firsts[1:]), strict=True)
        ]
        return pa.concat_tables(pieces).take(np.argsort(order))

    def _read_group(self, number: int) -> pa.Table:
        file, group = self._groups[number]
        return self._files[file].read_row_group(group, columns=list(_FOUND_OUT))


def _batches(layout: Layout, name: str, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(KEY_ROWS, columns=["key", "n_pages", "failure.kind"])
    except _DAMAGE as error:
        _raise_if_of_the_disk(error)
        raise OutputError(
            f"output {layout.uri}: {name} is damaged ({one_line(error)}); delete it and run again: "
            "its documents are counted again"
        ) from error


def ingested_files(plan_files: Sequence[str]) -> list[str]:
    """Return those of a manifest's plan files whose documents have their rows in the table."""
    return [name for name in plan_files if not name.endswith(_ONLY_KNOWN)]


def carry(
    layout: Layout,
    run_id: str,
    fingerprint: str,
    plan_file: str,
    published: Sequence[str] = (),
) -> list[str]:
    """Keep what is known of documents that a run's plan file does not name.

    `published` are the plan files of the manifest so far. Returns the names of the files to name
    beside `plan_file`: each uri is in one of them whose documents are in the table, and in one of
    what is known only. Files that lose nothing and are not small are kept as they are, so there are
    few, and what this costs follows the plans that are new.
    """
    with _plan_files(layout, fingerprint) as files:
        older = [name for name in files if name != plan_file]
    in_table = [name for name in ingested_files(published) if name in older]
    only_known = [name for name in older if name not in in_table]
    named = KeySet(_column(layout, [plan_file], _uri_keys))
    masks = {name: ~named.mask(_column(layout, [name], _uri_keys)) for name in in_table}
    kept = _brought_together(layout, run_file(run_id, "ingested"), fingerprint, masks)
    if not only_known:
        return kept
    versions = KeySet(_column(layout, in_table, _version_keys))
    masks = _unnamed(layout, named, versions, only_known)
    return kept + _brought_together(layout, run_file(run_id, "known"), fingerprint, masks)


def forget(layout: Layout, keep: Sequence[str]) -> None:
    """Delete the papers of all runs but those to keep; what the last runs came to stays too.

    So what a run lists here is the same after a thousand runs as after a hundred.
    """
    names = layout.list(RUNS, deep=True)
    stay = {*keep, *[name for name in names if name.endswith(_METRICS)][-_METRICS_KEPT:]}
    for name in names:
        if name.endswith((".parquet", _METRICS)) and name not in stay:
            layout.delete(name)
    local = layout.local(RUNS)
    for folder in local.iterdir() if local is not None else ():
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _unnamed(
    layout: Layout, named: KeySet, in_table: KeySet, files: Sequence[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return, for files of what is only known, which rows are of use: no newer file names the uri,
    and the table does not have that version."""
    masks: dict[str, NDArray[np.bool_]] = {}
    newer = [_column(layout, [], _uri_keys)]
    for name in reversed(files):
        uris = _column(layout, [name], _uri_keys)
        again = named.mask(uris) | KeySet(np.concatenate(newer)).mask(uris)
        newer.append(uris[~again])
        masks[name] = ~again & ~in_table.mask(_column(layout, [name], _version_keys))
    return dict(reversed(masks.items()))


def _brought_together(
    layout: Layout, path: str, fingerprint: str, masks: Mapping[str, NDArray[np.bool_]]
) -> list[str]:
    """Keep the large files that lose no row, and write the wanted rows of all others to `path`."""
    small = worth_merging([len(mask) for mask in masks.values()], _SMALL_ROWS, _TINY_ROWS)
    rewritten = {
        name: mask
        for (name, mask), is_small in zip(masks.items(), small, strict=True)
        if is_small or not mask.all()
    }
    kept = [name for name in masks if name not in rewritten]
    if not any(mask.any() for mask in rewritten.values()):
        return kept
    with row_writer(layout, path, known_schema(fingerprint)) as write:
        for name, mask in rewritten.items():
            start = 0
            for table in read_rows(layout, name):
                wanted = mask[start : start + table.num_rows]
                start += table.num_rows
                write(table.filter(pa.array(wanted)))
    return [*kept, path]


@contextmanager
def _plan_files(layout: Layout, fingerprint: str) -> Iterator[dict[str, pq.ParquetFile]]:
    """Open the plan files of a fingerprint, oldest first: run ids are sortable by time."""
    with ExitStack() as opened:
        files: dict[str, pq.ParquetFile] = {}
        for name in layout.list(RUNS, deep=True):
            if name.endswith(_PLAN_FILES):
                try:
                    stream = opened.enter_context(layout.open_input(name))
                    file = opened.enter_context(pq.ParquetFile(stream))
                except _DAMAGE as error:  # a store may hold half of what a killed run wrote
                    _raise_if_of_the_disk(error)
                    continue
                if (file.schema_arrow.metadata or {}).get(_FINGERPRINT) == fingerprint.encode():
                    files[name] = file
        yield files


def _raise_if_of_the_disk(error: Exception) -> None:
    """Damage to a file has no number of the system's; what has one is no fault of the file."""
    if getattr(error, "errno", None) is not None:
        raise error


def _usable(batch: pa.RecordBatch, retry: frozenset[FailureKind] | None) -> NDArray[np.bool_]:
    """What opened is known whatever came of it: which pages to read is settled anew."""
    opened: NDArray[np.bool_] = batch["n_pages"].is_valid().to_numpy(zero_copy_only=False)
    if retry is None:
        return opened
    kinds = pa.array([kind.value for kind in retry], pa.string())
    again = pc.is_in(pc.struct_field(batch["failure"], "kind"), value_set=kinds)
    kept: NDArray[np.bool_] = opened | ~again.to_numpy(zero_copy_only=False)
    return kept


def _column(
    layout: Layout, files: Sequence[str], keys_of: Callable[[pa.RecordBatch], Keys]
) -> Keys:
    """Return one of the two keys of all documents of plan files, in order."""
    column = "uri" if keys_of is _uri_keys else "key"
    keys = [
        keys_of(one) for name in files for one in read_batches(layout, name, [column], KEY_ROWS)
    ]
    return np.concatenate([as_array([]), *keys])


def _uri_keys(batch: pa.RecordBatch) -> Keys:
    return text_keys(batch["uri"])


def _version_keys(batch: pa.RecordBatch) -> Keys:
    return packed_keys(batch["key"])


_NOTHING = pa.schema([PLANS.field(name) for name in _FOUND_OUT]).empty_table()
