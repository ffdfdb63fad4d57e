"""parse: Answer -> PageResult: the record, validated, and the page's honest state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.errors import printable
from pipeline.lake.exact_json import dumps, loads
from pipeline.records import (
    MODEL_COUNTS,
    MODEL_TIMES,
    Answer,
    Failed,
    Failure,
    FailureKind,
    FinishReason,
    PageResult,
    StageName,
    State,
)

Validate = Callable[[Any], str | None]
"""Says in one line what is wrong with a record, None if nothing is."""


def parse_json(answer: Answer, validate: Validate, bounded: Validate | None = None) -> PageResult:
    """Parse an `extract` answer. Numbers stay exact: integers are int, others Decimal.

    A record that is valid, but not as `bounded` judges, has a list that was cut.
    """
    if answer.generation.finish_reason is FinishReason.LENGTH:
        return _cut_short(answer)
    try:
        record = loads(answer.generation.text)
    except ValueError as error:
        return _failed(answer, FailureKind.INVALID_JSON, f"the answer is not JSON: {error}")
    text = answer.generation.text.strip()
    if (complaint := validate(record)) is not None:
        return _failed(answer, FailureKind.SCHEMA_VIOLATION, complaint, text)
    if bounded is not None and (complaint := bounded(record)) is not None:
        message = printable(f"a list was cut at generation.max_items: {complaint}")
        return _truncated(answer, message[:500])
    return _result(answer, State.OK, record=record, record_json=text)


def parse_text(answer: Answer) -> PageResult:
    """Make an `ocr` answer a `text.v1` record. A cut text stays in `raw_text`."""
    if answer.generation.finish_reason is FinishReason.LENGTH:
        return _cut_short(answer)
    record = {"text": answer.generation.text.strip()}
    return _result(answer, State.OK, record=record, record_json=dumps(record))


def parse_failed(failed: Failed) -> PageResult:
    """Give a sample that failed in an earlier stage its row."""
    return PageResult(failed.id, State.FAILED, failed.failure, attempts=failed.failure.attempt)


def _cut_short(answer: Answer) -> PageResult:
    return _truncated(answer, f"the answer was cut at {len(answer.generation.token_ids)} tokens")


def _truncated(answer: Answer, message: str) -> PageResult:
    failure = Failure(StageName.GENERATE, FailureKind.TRUNCATED, message)
    return _result(answer, State.TRUNCATED, failure=failure)


def _failed(
    answer: Answer, kind: FailureKind, message: str, record_json: str | None = None
) -> PageResult:
    failure = Failure(StageName.PARSE, kind, printable(message)[:500])
    return _result(answer, State.FAILED, failure=failure, record_json=record_json)


def _result(answer: Answer, state: State, **outcome: Any) -> PageResult:
    generation = answer.generation
    return PageResult(
        id=answer.id,
        state=state,
        raw_text=generation.text,
        prompt_tokens=generation.prompt_tokens,
        output_tokens=len(generation.token_ids),
        rasterize_s=answer.rasterize_s,
        encode_s=answer.encode_s,
        attempts=answer.attempts,
        **{name: getattr(generation, name) for name in (*MODEL_TIMES, *MODEL_COUNTS)},
        **outcome,
    )
