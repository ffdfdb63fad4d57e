"""The figures as files: `eval.json`, `fields.parquet` and `documents.parquet`.

`documents.parquet` has one row a document of the truth, with what of it is not right, so that the
failures of a run are one query away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError, RunError, UserError, one_line
from pipeline.evaluation.report import Evaluation, field_figures
from pipeline.evaluation.scores import FieldScore, ScoredDocument
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import write_table
from pipeline.lake.store_errors import complaint

FIGURES, FIELDS, DOCUMENTS = "eval.json", "fields.parquet", "documents.parquet"

_TEXT, _COUNT, _RATE = pa.string(), pa.int64(), pa.float64()
_COUNTS = ("places", "correct", "right", "wrong", "missing", "invented", "silent", "unread")
_MORE_COUNTS = ("extra", "alike", "edits", "characters")
_RATES = ("accuracy", "alike_accuracy", "precision", "recall", "f1", "cer")

FIELDS_SCHEMA = pa.schema(
    [("group", _TEXT), ("field", _TEXT), ("kind", _TEXT)]
    + [(name, _COUNT) for name in (*_COUNTS, *_MORE_COUNTS)]
    + [(name, _RATE) for name in _RATES]
)
"""One row a field; `group` is null in the rows over all documents."""

_FIELD = pa.struct([("field", _TEXT), ("places", _COUNT), ("correct", _COUNT)])
_MISMATCH = pa.struct(
    [("place", _TEXT), ("outcome", _TEXT), ("truth", _TEXT), ("answer", _TEXT)],
)

DOCUMENTS_SCHEMA = pa.schema(
    [
        ("uri", _TEXT),
        ("document_uri", _TEXT),
        ("group", _TEXT),
        ("state", _TEXT),
        ("exact", pa.bool_()),
        ("anls", _RATE),
        ("fields", pa.list_(_FIELD)),
        ("mismatches", pa.list_(_MISMATCH)),
    ]
)
"""One row a document of the truth; `document_uri` is null if the output has no row of it."""

_ROWS = 1000


@contextmanager
def saving_documents(target: Layout) -> Iterator[Callable[[ScoredDocument], None]]:
    """Open `documents.parquet`; it appears whole when the block ends, and not if it raises.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    waiting: list[dict[str, Any]] = []

    try:
        with (
            target.write(DOCUMENTS) as stream,
            pq.ParquetWriter(stream, DOCUMENTS_SCHEMA, compression="zstd") as writer,
        ):

            def flush() -> None:
                writer.write_table(pa.Table.from_pylist(waiting, DOCUMENTS_SCHEMA))
                waiting.clear()

            def save(document: ScoredDocument) -> None:
                waiting.append(_document_row(document))
                if len(waiting) >= _ROWS:
                    flush()

            yield save
            flush()
    except OSError as error:
        raise _not_written(target, error) from error


def write_figures(target: Layout, evaluation: Evaluation) -> None:
    """Write `fields.parquet`, and then `eval.json`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    RunError
        If the store is away.
    """
    rows = _field_rows(None, evaluation.scores.fields)
    for name, scores in evaluation.sorted_groups():
        rows += _field_rows(name, scores.fields)
    try:
        write_table(target, FIELDS, pa.Table.from_pylist(rows, FIELDS_SCHEMA))
        target.write_bytes(FIGURES, evaluation.to_json().encode())
    except OSError as error:
        raise _not_written(target, error) from error


def _field_rows(group: str | None, fields: Mapping[str, FieldScore]) -> list[dict[str, Any]]:
    return [
        {"group": group, "field": path, **field_figures(score)} for path, score in fields.items()
    ]


def _document_row(document: ScoredDocument) -> dict[str, Any]:
    score = document.score
    return {
        "uri": document.uri,
        "document_uri": document.document_uri,
        "group": document.group or None,
        "state": document.state,
        "exact": score.exact,
        "anls": score.anls,
        "fields": [
            {"field": path, "places": one.places, "correct": one.correct}
            for path, one in score.fields.items()
        ],
        "mismatches": [asdict(mismatch) for mismatch in score.mismatches],
    }


def _not_written(target: Layout, error: OSError) -> UserError | RunError:
    said = f"--out {target.uri}: cannot be written ({one_line(error)})"
    return complaint(OutputError, said, error, "; name another")
