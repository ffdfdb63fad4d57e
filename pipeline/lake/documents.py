"""The files of `documents`: a run's new rows, and those of earlier runs that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import ConservationError
from pipeline.lake.keys import Keys, KeySet, as_array, text_key
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import (
    KEY_ROWS,
    opened,
    read_batches,
    rows_of,
    worth_rewriting,
    write_tables,
)
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
) -> DocumentFiles:
    """Write new rows, and with them the rows of `old` files that stay and cannot stay where they
    are; no file is deleted.

    `uris` is asked, once all of `new` has gone by, for the keys of the uris that the run planned:
    of these no old row stays. Files that lose no row stay as they are, unless they are small
    (`worth_rewriting`).

    Raises
    ------
    ConservationError
        If a uri was planned more than once.
    """
    kept: list[str] = []
    carried = 0

    def rows() -> Iterator[pa.Table]:
        nonlocal carried
        yield from new
        planned = uris()
        if planned.doubled():
            raise ConservationError(f"{planned.doubled()} documents are planned more than once")
        live = {name: ~planned.mask(uri_keys(layout, name)) for name in old}
        carried = sum(int(np.count_nonzero(mask)) for mask in live.values())
        rewritten = worth_rewriting(layout, live)
        # An output of a version that knew no digests goes on as well.
        rewritten |= {name: live[name] for name in old if not _has_digests(layout, name)}
        kept.extend(name for name in live if name not in rewritten)
        for rows in rows_of(layout, rewritten):
            yield rows if DIGEST in rows.column_names else with_digests(rows)

    written = write_tables(layout, prefix, schema, rows())
    return DocumentFiles((*kept, *written), carried)


def _has_digests(layout: Layout, name: str) -> bool:
    with opened(layout, name) as file:
        return DIGEST in file.schema_arrow.names


def uri_keys(layout: Layout, name: str) -> Keys:
    """Return the keys of the uris of a file of `documents`, in order."""
    batches = read_batches(layout, name, ["uri"], KEY_ROWS)
    return as_array(key for one in batches for key in map(text_key, one["uri"].to_pylist()))
