"""A finished run beside the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError, OutputError, RunError, UserError, one_line
from pipeline.evaluation.compare import score_record
from pipeline.evaluation.report import Evaluation
from pipeline.evaluation.save import saving_documents, write_figures
from pipeline.evaluation.scores import ScoredDocument, Scores
from pipeline.evaluation.shape import RecordShape, record_shape
from pipeline.evaluation.truth import Truth, TruthDocument, read_truth
from pipeline.evaluation.uris import row_keys
from pipeline.lake.exact_json import loads
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger, Manifest
from pipeline.lake.parquet import read_batches
from pipeline.lake.store_errors import complaint
from pipeline.lake.stores import Stores
from pipeline.records import State

NO_ROW = "no row"
"""The state of a document of the truth that the output does not have."""

_COLUMNS = ("uri", "state", "record_json")


def evaluate(
    output: str,
    truth: str,
    by: str | None = None,
    out: str | None = None,
    stores: Stores = Stores(),
) -> Evaluation:
    """Score the documents of a finished run beside a truth file.

    With `out`, a folder or URI, also writes `eval.json`, `fields.parquet` and `documents.parquet`
    there. Memory holds the truth as text, and the figures; rows are streamed.

    Raises
    ------
    InputError
        If the truth cannot be used, or does not tell which document it means.
    OutputError
        If `output` is not a finished run's, or `out` cannot be written.
    RunError
        If a store is away.
    """
    layout = Layout.open(output, stores)
    manifest = _manifest(layout)
    shape = record_shape(manifest.schema)
    known = read_truth(truth, shape, by)
    run = manifest.provenance
    found = Evaluation(output, truth, run.schema_id, run.run_id, by, unknown_keys=known.unknown)
    target = None if out is None else Layout.open(out, stores)
    with nullcontext(None) if target is None else saving_documents(target) as save:
        for row in _scored(layout, manifest, shape, known, found):
            found.scores.add(row.score, row.state, with_record=row.with_record)
            if by is not None:
                group = found.groups.setdefault(row.group, Scores())
                group.add(row.score, row.state, with_record=row.with_record)
            if save is not None:
                save(row)
    if target is not None:
        write_figures(target, found)
    return found


def _manifest(layout: Layout) -> Manifest:
    try:
        manifest = Ledger(layout).manifest()
    except OSError as error:
        raise _not_read(layout, error) from error
    if manifest is None:
        raise OutputError(
            f"output {layout.uri}: holds no finished run; name a run's output.uri, "
            "and let the run come to its end"
        )
    return manifest


def _scored(
    layout: Layout, manifest: Manifest, shape: RecordShape, truth: Truth, found: Evaluation
) -> Iterator[ScoredDocument]:
    """Yield every document of the truth once, those with a row first."""
    taken: dict[str, str] = {}
    for uri, state, text in _rows(layout, manifest):
        key = next((key for key in row_keys(uri) if key in truth.documents), None)
        if key is None:
            found.unlabelled += 1
            continue
        document = truth.documents[key]
        if taken.setdefault(key, uri) != uri:
            raise InputError(
                f"truth {found.truth}: {document.uri} may be {taken[key]} or {uri}; "
                "write more of its path"
            )
        yield _score(shape, document, uri, state, _answer(state, text))
    if not taken:
        raise InputError(_strangers(truth, found, layout, manifest))
    for key, document in truth.documents.items():
        if key not in taken:
            yield _score(shape, document, None, NO_ROW, None)


def _strangers(truth: Truth, found: Evaluation, layout: Layout, manifest: Manifest) -> str:
    expected = next(iter(truth.documents.values())).uri
    uri = next((row[0] for row in _rows(layout, manifest)), None)
    there = f"the output has {uri}" if uri else "the output has no document at all"
    return (
        f"truth {found.truth}: none of its documents is in {found.output}: it names {expected}, "
        f"and {there}; a uri is the whole path, or its end"
    )


def _rows(layout: Layout, manifest: Manifest) -> Iterator[tuple[str, str, str | None]]:
    try:
        for name in manifest.documents:
            for batch in read_batches(layout, name, _COLUMNS):
                yield from zip(*(batch[name].to_pylist() for name in _COLUMNS), strict=True)
    except (OSError, pa.ArrowException) as error:
        raise _not_read(layout, error) from error


def _not_read(layout: Layout, error: Exception) -> UserError | RunError:
    said = f"output {layout.uri}: cannot be read ({one_line(error)})"
    return complaint(OutputError, said, error)


def _answer(state: str, text: str | None) -> dict[str, Any] | None:
    """Return a row's record; None if it failed. The text is exact where Arrow's float64 is not."""
    record = None if text is None or state == State.FAILED else loads(text)
    return record if isinstance(record, dict) else None


def _score(
    shape: RecordShape,
    truth: TruthDocument,
    uri: str | None,
    state: str,
    answer: dict[str, Any] | None,
) -> ScoredDocument:
    score = score_record(shape, truth.record(), answer)
    return ScoredDocument(truth.uri, uri, truth.group, state, answer is not None, score)
