"""The two published tables: their columns, and the rows of results.

Every column says what it holds in its Arrow metadata (key `description`), which is the reference
for readers of the tables. Names, once published, do not change meaning. All columns are nullable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from pipeline.lake.exact_json import dumps
from pipeline.lake.values import converter
from pipeline.records import (
    MODEL_COUNTS,
    MODEL_TIMES,
    DocumentResult,
    Failure,
    PageResult,
    Provenance,
    State,
)

_TEXT, _COUNT, _SECONDS = pa.string(), pa.int32(), pa.float64()

DIGEST = "row_digest"
"""The column of `documents` that tells whether a row is as it was."""

Column = tuple[str, pa.DataType, str]


def _shared_columns(record_type: pa.DataType) -> list[Column]:
    return [
        ("document_id", _TEXT, "sha256 of the content in hex; null if it could not be read"),
        ("uri", _TEXT, "where the document was read; in pages, where it was seen first"),
        ("n_pages", _COUNT, "pages in the document; null if it could not be opened"),
        ("state", _TEXT, "ok, truncated, partial (documents only) or failed"),
        ("task", _TEXT, "extract or ocr"),
        ("failure_kind", _TEXT, "why the row is not ok, from a closed list; null if it is ok"),
        ("failure_stage", _TEXT, "the stage that failed; null if the row is ok"),
        ("failure_message", _TEXT, "one line on the failure; null if the row is ok"),
        ("record", record_type, "the answer, true to the schema; null if failed"),
        (
            "record_json",
            _TEXT,
            "the answer as JSON with exact numbers, kept if it breaks the schema",
        ),
        ("schema_id", _TEXT, "the schema's name and version"),
        ("model_id", _TEXT, "the model's name"),
        ("model_revision", _TEXT, "the exact version of the model"),
        ("prompt_hash", _TEXT, "hash of the prompt"),
        ("pipeline_version", _TEXT, "the version of pagelake that made the row"),
        ("run_id", _TEXT, "the run that made the row"),
        ("processed_at", pa.timestamp("us", "UTC"), "when the row was made"),
        ("fingerprint", _TEXT, "hash of all that changes answers: schema, prompt, model, settings"),
        ("source", pa.map_(_TEXT, _TEXT), "the input manifest's other columns"),
        (
            "confidence",
            pa.float64(),
            "calibrated probability that the record is right; null so far",
        ),
        ("evidence", _TEXT, "JSON: where on the page each value stands; null so far"),
        ("conflicts", _TEXT, "JSON: path -> [{page, value}] stated otherwise by later pages"),
    ]


_PAGE_COLUMNS: list[Column] = [
    ("page_numbers", pa.list_(pa.field("element", _COUNT)), "the pages of the prompt, from 1"),
    ("raw_text", _TEXT, "what the model wrote; null if it wrote nothing"),
    ("attempts", _COUNT, "how often the sample was tried"),
    ("prompt_tokens", _COUNT, "tokens of the prompt, images included"),
    ("output_tokens", _COUNT, "tokens of the answer"),
    ("rasterize_s", _SECONDS, "seconds to draw the pages"),
    ("encode_s", _SECONDS, "seconds to cut the pages into tiles"),
    ("queue_s", _SECONDS, "seconds the sample waited for the model"),
    ("model_s", _SECONDS, "the sample's share of its batches' seconds in the model"),
    ("vision_s", _SECONDS, "of model_s, for the images"),
    ("prefill_s", _SECONDS, "of model_s, for the prompt"),
    ("decode_s", _SECONDS, "of model_s, for the answer"),
    ("forced_tokens", _COUNT, "of output_tokens, those that the schema left no choice about"),
    ("drafted_tokens", _COUNT, "of output_tokens, those guessed right from the text layer"),
    ("passes", _COUNT, "passes through the model that the answer took; 0 if unknown"),
    ("looks", _COUNT, "times the sample was shown: 2 if the answer of whole images was in doubt"),
]

_DOCUMENT_COLUMNS: list[Column] = [
    ("pages_ok", _COUNT, "pages that ended ok"),
    ("pages_truncated", _COUNT, "pages whose answer the token limit cut"),
    ("pages_failed", _COUNT, "pages that failed"),
    ("pages_skipped", _COUNT, "pages that were not read; null if n_pages is"),
    (
        "field_pages",
        _TEXT,
        "JSON: path -> the page whose value was taken; of a prompt's pages, the first",
    ),
    (
        DIGEST,
        _TEXT,
        "digest of the row but for run_id and processed_at: equal digests, equal rows",
    ),
]
_NOT_IN_DIGEST = ("run_id", "processed_at", DIGEST)


def pages_schema(record_type: pa.DataType) -> pa.Schema:
    """Return the columns of `pages` for records of a type."""
    return _schema([*_shared_columns(record_type), *_PAGE_COLUMNS])


def documents_schema(record_type: pa.DataType) -> pa.Schema:
    """Return the columns of `documents` for records of a type."""
    return _schema([*_shared_columns(record_type), *_DOCUMENT_COLUMNS])


def pages_table(
    results: Sequence[PageResult],
    sources: Sequence[Mapping[str, str]],
    provenance: Provenance,
    record_type: pa.DataType,
    processed_at: datetime,
) -> pa.Table:
    """Make rows of `pages`, in order; `sources` has the source columns of each result's document.

    Raises
    ------
    ItemError
        If a record does not fit `record_type`.
    """
    shared = _shared(results, sources, provenance, processed_at, converter(record_type))
    columns: dict[str, Iterable[Any]] = {
        "document_id": (result.id.document_id for result in results),
        "uri": (_text(result.id.uri) for result in results),
        "n_pages": (result.id.n_pages for result in results),
        "page_numbers": (list(result.id.page_numbers) for result in results),
        "raw_text": (_text(result.raw_text) for result in results),
    }
    counts = ("attempts", "prompt_tokens", "output_tokens", *MODEL_COUNTS)
    for name in (*counts, "rasterize_s", "encode_s", *MODEL_TIMES):
        columns[name] = [getattr(result, name) for result in results]
    return _table(pages_schema(record_type), shared | columns, len(results))


def documents_table(
    results: Sequence[DocumentResult],
    provenance: Provenance,
    record_type: pa.DataType,
    processed_at: datetime,
) -> pa.Table:
    """Make rows of `documents`, in order.

    Raises
    ------
    ItemError
        If a record does not fit `record_type`.
    """
    sources = [result.plan.document.source for result in results]
    shared = _shared(results, sources, provenance, processed_at, converter(record_type))
    columns: dict[str, Iterable[Any]] = {
        "document_id": (result.plan.document_id for result in results),
        "uri": (_text(result.plan.document.uri) for result in results),
        "n_pages": (result.plan.n_pages for result in results),
        "conflicts": (_json(result.conflicts) for result in results),
        "pages_skipped": (_skipped(result) for result in results),
        "field_pages": (_json(result.field_pages) for result in results),
    }
    for name in ("pages_ok", "pages_truncated", "pages_failed"):
        columns[name] = [getattr(result, name) for result in results]
    return with_digests(_table(documents_schema(record_type), shared | columns, len(results)))


def with_digests(documents: pa.Table) -> pa.Table:
    """Return rows of `documents` with their digests, of 32 hex digits, as the last column."""
    kept = [name for name in documents.column_names if name not in _NOT_IN_DIGEST]
    digests = [
        blake2b(json.dumps(row, default=str).encode(), digest_size=16).hexdigest()
        for row in documents.select(kept).to_pylist()
    ]
    name, type_, text = _DOCUMENT_COLUMNS[-1]
    field = pa.field(name, type_, metadata={"description": text})
    rest = documents.select([one for one in documents.column_names if one != DIGEST])
    return rest.append_column(field, pa.array(digests, type_))


def _schema(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, type_, metadata={"description": text}) for name, type_, text in columns]
    )


def _shared(
    results: Sequence[PageResult] | Sequence[DocumentResult],
    sources: Sequence[Mapping[str, str]],
    provenance: Provenance,
    processed_at: datetime,
    convert: Callable[[Any], Any],
) -> dict[str, Iterable[Any]]:
    if len(sources) != len(results):
        raise ValueError(f"{len(results)} results and {len(sources)} sources")
    columns: dict[str, Iterable[Any]] = {
        "state": (result.state.value for result in results),
        "failure_kind": (_of(result.failure, "kind") for result in results),
        "failure_stage": (_of(result.failure, "stage") for result in results),
        "failure_message": (_text(_of(result.failure, "message")) for result in results),
        "record": (
            None if result.state is State.FAILED else convert(result.record) for result in results
        ),
        "record_json": (_record_json(result) for result in results),
        "processed_at": (processed_at for _ in results),
        "source": (
            [(_text(key), _text(value)) for key, value in source.items()] for source in sources
        ),
    }
    for name in (
        "task",
        "schema_id",
        "model_id",
        "model_revision",
        "prompt_hash",
        "pipeline_version",
        "run_id",
        "fingerprint",
    ):
        columns[name] = [getattr(provenance, name)] * len(results)
    return columns


def _table(schema: pa.Schema, columns: Mapping[str, Iterable[Any]], n_rows: int) -> pa.Table:
    arrays = [
        pa.array(columns[field.name], type=field.type, size=n_rows)
        if field.name in columns
        else pa.nulls(n_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _of(failure: Failure | None, name: str) -> str | None:
    return None if failure is None else str(getattr(failure, name))


def _record_json(result: PageResult | DocumentResult) -> str | None:
    if result.record_json is None and result.record is not None:
        return _text(dumps(result.record))
    return _text(result.record_json)


def _skipped(result: DocumentResult) -> int | None:
    read = result.pages_ok + result.pages_truncated + result.pages_failed
    return None if result.plan.n_pages is None else result.plan.n_pages - read


def _json(value: Mapping[str, Any]) -> str | None:
    return _text(dumps(value)) if value else None


def _text(text: str | None) -> str | None:
    """Make text fit UTF-8: half a surrogate pair (an odd file name or answer) is escaped."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
