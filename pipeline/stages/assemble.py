"""assemble: committed pages -> `documents`, checked against the plan and published in one swap.

Runs once, when every planned page has its row. Out of core: one bucket of documents is in memory at
a time.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ConservationError, ItemError
from pipeline.lake.documents import write_documents
from pipeline.lake.exact_json import dumps
from pipeline.lake.join import Planned, planned_pages
from pipeline.lake.json_schema import Schema, without_unstated
from pipeline.lake.keys import KeySet, as_array, text_key
from pipeline.lake.layout import DOCUMENTS, PAGES, Layout
from pipeline.lake.ledger import Counts, Ledger, Manifest
from pipeline.lake.merge import merge_records
from pipeline.lake.parquet import (
    compact,
    count_rows,
    count_values,
    document_keys,
    names_hash,
)
from pipeline.lake.swap import swap
from pipeline.lake.tables import (
    documents_schema,
    documents_table,
    pages_schema,
)
from pipeline.lake.types import arrow_type
from pipeline.lake.values import converter
from pipeline.records import (
    DocumentResult,
    Failure,
    FailureKind,
    PageResult,
    Plan,
    Provenance,
    StageName,
    State,
)

Validate = Callable[[Any], str | None]
"""Says in one line what is wrong with a record, None if nothing is."""

JOINED_TEXT: Mapping[str, frozenset[str]] = {"ocr": frozenset({"text"})}
"""By task, the properties whose pages' texts are joined with form feeds."""

_DOCUMENTS_AT_ONCE = 1000
_PAGES_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a run came to: its own documents by state and by failure kind, its pages by state.

    `carried` is the number of documents of earlier runs that stay in the table.
    """

    manifest: Manifest
    documents: Mapping[str, int]
    failures: Mapping[str, int]
    pages: Mapping[str, int]
    carried: int


def merge(
    plan: Plan,
    pages: Sequence[PageResult],
    validate: Validate,
    schema: Schema,
    joined: frozenset[str] = frozenset(),
) -> DocumentResult:
    """Make one document of its planned pages' results, which cover the plan, in page order.

    A result of the whole document passes through. Otherwise the records are merged (see
    `pipeline.lake.merge`; `joined` names the properties that are joined with form feeds),
    properties that no page states and `schema` does not require are left out, and `validate`
    decides, as the true schema does:

    - all pages failed: failed, with the first page's failure; some failed: partial;
    - a page was truncated, none failed: truncated;
    - all pages are ok: ok if the merged record is valid, else failed as `schema_violation`.

    A merged record that is not valid is kept in `record_json` only.
    """
    if plan.failure is not None:
        return DocumentResult(plan, State.FAILED, plan.failure)
    counts: Counter[State] = Counter()
    for page in pages:
        counts[page.state] += len(page.id.page_numbers)
    counted = partial(
        DocumentResult,
        plan,
        pages_ok=counts[State.OK],
        pages_truncated=counts[State.TRUNCATED],
        pages_failed=counts[State.FAILED],
    )
    if len(pages) == 1 and pages[0].id.whole:
        (page,) = pages
        return counted(page.state, page.failure, page.record, page.record_json)
    if not pages:
        failure = Failure(StageName.ASSEMBLE, FailureKind.EMPTY, "no page was planned")
        return counted(State.FAILED, failure)
    if counts[State.FAILED] == counts.total():
        return counted(State.FAILED, pages[0].failure)

    stated = [
        (page.id.page_numbers[0], None if page.state is State.FAILED else page.record)
        for page in pages
    ]
    merged = merge_records(stated, joined)
    record = without_unstated(merged.record, schema, schema)
    complaint = validate(record)
    return counted(
        *_state(pages, counts, complaint),
        record=record if complaint is None else None,
        record_json=None if record is None else dumps(record),
        conflicts=merged.conflicts,
        field_pages=merged.field_pages,
    )


def _state(
    pages: Sequence[PageResult], counts: Counter[State], complaint: str | None
) -> tuple[State, Failure | None]:
    for page_state, state in (
        (State.FAILED, State.PARTIAL),
        (State.TRUNCATED, State.TRUNCATED),
    ):
        if counts[page_state]:
            return state, next(page.failure for page in pages if page.state is page_state)
    if complaint is not None:
        failure = Failure(StageName.ASSEMBLE, FailureKind.SCHEMA_VIOLATION, complaint)
        return State.FAILED, failure
    return State.OK, None


def assemble(
    ledger: Ledger,
    plans: Iterable[Plan],
    provenance: Provenance,
    schema: Schema,
    validate: Validate,
    plan_files: Sequence[str] = (),
    before_publishing: Callable[[], None] = lambda: None,
    partition_by: Sequence[str] = (),
) -> Assembly:
    """Make and publish the tables of a run whose pages are all committed.

    `schema` and `validate` are the true schema. Documents of earlier finished runs with the same
    fingerprint stay in the table unless the plans name their uri; rows of other fingerprints go.
    What this costs follows the plans, and not what else is in the tables: of that, keys and states
    are read, and small files rewritten. Pages stay if their document is in the table. After the
    swap all files that no reader looks at are deleted, so no other run may be writing to the output
    (`before_publishing` raises if one may be); until then nothing changes for readers. The
    temporary folder (TMPDIR) takes about the size of the `record_json` of the plans' pages,
    and with `partition_by` (see `pipeline.lake.partitions`) that of the documents written too.

    Raises
    ------
    ConservationError
        If a planned page has no row or several, a row of this run was not planned, a document is
        planned twice, or a new file lacks rows. Nothing is published or deleted then.
    """
    layout, run_id = ledger.layout, provenance.run_id
    record_type = arrow_type(schema)
    # One snapshot for all: what arrives after it is neither read nor folded in nor deleted.
    found = ledger.snapshot()
    page_files = found.page_files(provenance.fingerprint)
    previous = found.manifest
    if previous is not None and previous.fingerprint != provenance.fingerprint:
        previous = None
    old_documents = () if previous is None else previous.documents
    tally = _Tally()

    with tempfile.TemporaryDirectory(prefix="pagelake-") as folder:
        planned = planned_pages(layout, plans, page_files, run_id, Path(folder))
        results = _merged(planned, _storable(validate, record_type), schema, provenance.task)
        documents = write_documents(
            layout,
            f"{DOCUMENTS}/{run_id}-{names_hash([*page_files, *old_documents])}",
            documents_schema(record_type),
            _tables(results, provenance, record_type, tally),
            tally.planned,
            old_documents,
            partition_by,
            Path(folder) / "folders",
        )
    _require_rows(layout, documents.files, tally.documents.total() + documents.carried)
    # Pages that an unfinished run left are kept once more: the run they belong to may go on next.
    left_over = [one.file for one in found.unfolded() if one.run_id != run_id]
    live = KeySet(document_keys(layout, [*documents.files, *left_over]))
    prefix = f"{PAGES}/{run_id}"
    pages, n_kept = compact(layout, page_files, pages_schema(record_type), prefix, live)
    _require_rows(layout, pages, n_kept)
    runs = [*(() if previous is None else previous.runs)]
    runs += [one.run_id for one in found.commits if one.fingerprint == provenance.fingerprint]
    manifest = Manifest(
        provenance=provenance,
        schema=schema,
        runs=tuple(dict.fromkeys([*runs, run_id])),
        pages=tuple(pages),
        documents=documents.files,
        plans=tuple(plan_files),
        counts=Counts(
            pages=count_values(layout, pages, "state"),
            documents=count_values(layout, documents.files, "state"),
            failures=count_values(layout, documents.files, "failure_kind"),
            looks=count_values(layout, pages, "looks"),
        ),
        finished_at=datetime.now(UTC),
        folded={one.name: one.written_at.isoformat() for one in found.commits},
    )
    manifest = swap(ledger, found, manifest, before_publishing)
    return Assembly(manifest, tally.documents, tally.failures, tally.pages, documents.carried)


def _require_rows(layout: Layout, files: Sequence[str], expected: int) -> None:
    written = count_rows(layout, files)
    if written != expected:
        raise ConservationError(f"{expected} rows were to be in new files and {written} are")


@dataclass(slots=True)
class _Tally:
    """Counts what goes by, and remembers the uris, in 16 bytes each."""

    documents: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    pages: Counter[str] = field(default_factory=Counter)
    uris: bytearray = field(default_factory=bytearray)

    def add(self, result: DocumentResult) -> None:
        self.documents[result.state.value] += 1
        if result.failure is not None:
            self.failures[result.failure.kind.value] += 1
        self.pages[State.OK.value] += result.pages_ok
        self.pages[State.TRUNCATED.value] += result.pages_truncated
        self.pages[State.FAILED.value] += result.pages_failed
        self.uris += text_key(result.plan.document.uri)

    def planned(self) -> KeySet:
        return KeySet(as_array([bytes(self.uris)]))


def _merged(
    planned: Iterable[Planned], validate: Validate, schema: Schema, task: str
) -> Iterator[DocumentResult]:
    joined = JOINED_TEXT.get(task, frozenset())
    return (merge(plan, pages, validate, schema, joined) for plan, pages in planned)


def _storable(validate: Validate, record_type: pa.DataType) -> Validate:
    """Ask of a record that it is valid and that the table can hold it exactly."""
    convert = converter(record_type)

    def complaint(record: Any) -> str | None:
        found = validate(record)
        if found is None:
            try:
                convert(record)
            except ItemError as error:
                return error.message
        return found

    return complaint


def _tables(
    results: Iterable[DocumentResult],
    provenance: Provenance,
    record_type: pa.DataType,
    tally: _Tally,
) -> Iterator[pa.Table]:
    """Make tables of bounded size; a document of thousands of pages ends one early."""
    waiting: list[DocumentResult] = []
    n_pages = 0
    for result in results:
        tally.add(result)
        waiting.append(result)
        n_pages += result.pages_ok + result.pages_truncated
        if len(waiting) == _DOCUMENTS_AT_ONCE or n_pages >= _PAGES_AT_ONCE:
            yield documents_table(waiting, provenance, record_type, datetime.now(UTC))
            waiting, n_pages = [], 0
    if waiting:
        yield documents_table(waiting, provenance, record_type, datetime.now(UTC))
