"""The files of `documents`: a run's new rows, and those of earlier runs that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import ConservationError
from pipeline.lake.keys import Keys, KeySet, as_array, text_keys
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import (
    KEY_ROWS,
    Mask,
    opened,
    read_batches,
    rows_of,
    worth_rewriting,
    write_tables,
)
from pipeline.lake.partitions import SortedRows, fits, folder_of
from pipeline.lake.tables import DIGEST, with_digests


@dataclass(frozen=True, slots=True)
class DocumentFiles:
    """The files of the whole table, and how many rows of earlier runs are in them."""

    files: tuple[str, ...]
    carried: int


def write_documents(
    layout: Layout,
    prefix: str,
    schema: pa.Schema,
    new: Iterable[pa.Table],
    uris: Callable[[], KeySet],
    old: Sequence[str],
    partition_by: Sequence[str],
    scratch: Path,
) -> DocumentFiles:
    """Write new rows, and with them the rows of `old` files that stay and cannot stay where they
    are, in the folders of `partition_by`; no file is deleted.

    `uris` is asked, once all of `new` has gone by, for the keys of the uris that the run planned:
    of these no old row stays. Files that lose no row stay as they are, unless they are small
    (`worth_rewriting`), lie in other folders, or are of a version that knew no digests. Each
    folder is a table of its own there: one without a new row keeps its files. What does not fit
    into memory while it is sorted by folder waits in `scratch`.

    Raises
    ------
    JobError
        If there would be too many folders, or a value is too long to name one.
    ConservationError
        If a uri was planned more than once.
    """
    kept: list[str] = []
    carried = 0
    sorted_rows = SortedRows(partition_by, scratch)

    def rows() -> Iterator[pa.Table]:
        nonlocal carried
        yield from new
        planned = uris()
        if planned.doubled():
            raise ConservationError(f"{planned.doubled()} documents are planned more than once")
        live = {name: ~planned.mask(uri_keys(layout, name)) for name in old}
        carried = sum(int(np.count_nonzero(mask)) for mask in live.values())
        misplaced = {
            name: mask
            for name, mask in live.items()
            if not fits(name, partition_by) or not _has_digests(layout, name)
        }
        yield from _rows_with_digests(layout, misplaced)
        stay = [name for name in live if name not in misplaced]
        for folder, names in groupby(sorted(stay, key=folder_of), folder_of):  # a stable sort
            masks = {name: live[name] for name in names}
            is_new = not partition_by or folder in sorted_rows.folders.names
            rewritten = _worth_rewriting(layout, masks, is_new)
            kept.extend(name for name in masks if name not in rewritten)
            yield from _rows_with_digests(layout, rewritten)

    if not partition_by:
        files = write_tables(layout, prefix, schema, rows())
        return DocumentFiles((*kept, *files), carried)
    for table in rows():
        sorted_rows.add(table)
    top, _, name = prefix.partition("/")
    written: list[str] = []
    for number, (folder, tables) in enumerate(sorted_rows.take()):
        # Numbered, because folders whose names differ in case only may be one to the disk.
        written += write_tables(layout, f"{top}/{folder}/{name}-{number:03}", schema, tables)
    return DocumentFiles((*kept, *written), carried)


def _worth_rewriting(layout: Layout, live: Mapping[str, Mask], is_new: bool) -> dict[str, Mask]:
    """Return the files of a folder to write anew: not one alone that loses and gains no row."""
    rewritten = worth_rewriting(layout, live)
    if not is_new and len(rewritten) == 1 and all(mask.all() for mask in rewritten.values()):
        return {}
    return rewritten


def _rows_with_digests(layout: Layout, files: Mapping[str, Mask]) -> Iterator[pa.Table]:
    for rows in rows_of(layout, files):
        yield rows if DIGEST in rows.column_names else with_digests(rows)


def _has_digests(layout: Layout, name: str) -> bool:
    with opened(layout, name) as file:
        return DIGEST in file.schema_arrow.names


def uri_keys(layout: Layout, name: str) -> Keys:
    """Return the keys of the uris of a file of `documents`, in order."""
    batches = read_batches(layout, name, ["uri"], KEY_ROWS)
    return np.concatenate([as_array([]), *(text_keys(one["uri"]) for one in batches)])
