"""write: PageResults -> one committed file of `pages`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.errors import ItemError
from pipeline.lake.keys import page_key
from pipeline.lake.layout import PAGES
from pipeline.lake.ledger import Commit, Ledger
from pipeline.lake.parquet import write_table
from pipeline.lake.tables import pages_table
from pipeline.lake.values import converter
from pipeline.records import Failure, PageResult, Provenance, StageName, State


def write_pages(
    ledger: Ledger,
    results: Sequence[PageResult],
    sources: Sequence[Mapping[str, str]],
    provenance: Provenance,
    record_type: pa.DataType,
) -> Commit:
    """Write rows of pages as one file, then commit it: the rows appear together or not at all.

    The file is named by the run and its rows' pages, so a task that is tried again writes over
    itself, though they may be in other rows this time. `sources` has the source columns of each
    result's document. A record that the table cannot hold exactly makes its row a
    `schema_violation`.
    """
    if not results:
        raise ValueError("there are no rows to write")
    convert = converter(record_type)
    rows = [_storable(result, convert) for result in results]
    written_at = datetime.now(UTC)
    name = f"{provenance.run_id}-{_hash(rows)}"
    file = f"{PAGES}/{name}.parquet"
    write_table(
        ledger.layout, file, pages_table(rows, sources, provenance, record_type, written_at)
    )
    commit = Commit(
        run_id=provenance.run_id,
        fingerprint=provenance.fingerprint,
        name=name,
        file=file,
        n_rows=len(rows),
        states=_pages_by((row.state.value, row) for row in rows),
        failures=_pages_by((row.failure.kind.value, row) for row in rows if row.failure),
        written_at=written_at,
    )
    ledger.commit(commit)
    return commit


def _storable(result: PageResult, convert: Callable[[Any], Any]) -> PageResult:
    if result.state is State.FAILED:
        return result
    try:
        convert(result.record)
    except ItemError as error:
        failure = Failure(StageName.PARSE, error.kind, error.message, result.attempts)
        return replace(result, state=State.FAILED, failure=failure)
    return result


def _pages_by(named: Iterable[tuple[str, PageResult]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, row in named:
        counts[name] += len(row.id.page_numbers)
    return dict(counts)


def _hash(rows: Sequence[PageResult]) -> str:
    keys = sorted(page_key(row.id.document_id, n) for row in rows for n in row.id.page_numbers)
    return hashlib.blake2b(b"".join(keys), digest_size=16).hexdigest()
