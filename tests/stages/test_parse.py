from __future__ import annotations

import json
from decimal import Decimal

import pytest

from pipeline.records import (
    Answer,
    Failed,
    Failure,
    FailureKind,
    FinishReason,
    Generation,
    PageResult,
    SampleId,
    StageName,
    State,
)
from pipeline.schema import Validator, bound_lists, load_schema, make_schema
from pipeline.stages.parse import parse_failed, parse_json, parse_text

ID = SampleId("d" * 64, "a.pdf", 1, (1,))
RECEIPT = Validator(load_schema("receipt.v1").document)
ANYTHING = Validator(
    make_schema({"type": "object", "properties": {"a": {}}}, "any", "any").document
)
GOOD = (
    '{"merchant": "Café", "date": "2024-02-29", "items": [{"name": "Tea", "qty": 2,'
    ' "price": 3.10}], "total": 3.10, "currency": "EUR"}'
)


def answer(text: str, reason: FinishReason = FinishReason.STOP) -> Answer:
    generation = Generation(text, (5, 6, 7), (-0.1, -0.2, -0.3), reason, 11, 0.5, 0.25)
    return Answer(ID, generation, rasterize_s=1.5, encode_s=2.5)


def parsed(text: str, validator: Validator = ANYTHING) -> PageResult:
    return parse_json(answer(text), validator.violation)


def test_a_valid_answer_is_ok_and_its_numbers_are_exact() -> None:
    result = parsed(f" {GOOD}\n", RECEIPT)
    assert result.state is State.OK
    assert result.failure is None
    assert result.record["items"][0] == {"name": "Tea", "qty": 2, "price": Decimal("3.10")}
    assert str(result.record["total"]) == "3.10"
    assert type(result.record["items"][0]["qty"]) is int
    assert result.record_json == GOOD
    assert result.raw_text == f" {GOOD}\n"


def test_a_row_carries_what_its_page_cost() -> None:
    result = parsed(GOOD, RECEIPT)
    assert (result.prompt_tokens, result.output_tokens) == (11, 3)
    assert (result.rasterize_s, result.encode_s) == (1.5, 2.5)
    assert (result.queue_s, result.model_s) == (0.5, 0.25)
    assert (result.id, result.attempts) == (ID, 1)


@pytest.mark.parametrize("text", ["0.1", "12345678901234567890.123456789", "-0", "1E400", "1e-400"])
def test_numbers_are_kept_as_written(text: str) -> None:
    result = parsed(f'{{"a": {text}}}')
    assert result.state is State.OK
    value = result.record["a"]
    assert not isinstance(value, float)
    assert value == Decimal(text)
    assert result.record_json == f'{{"a": {text}}}'


def test_an_integer_of_many_digits_is_exact() -> None:
    assert parsed(f'{{"a": {10**4000 + 7}}}').record == {"a": 10**4000 + 7}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        '{"a": 1',
        '{"a": 1}}',
        '{"a": 1} and so on',
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 01}',
        '{"a": "\n"}',
        '{"a": %s}' % ("9" * 5000),
        '{"a": 1e9999999999999999999}',
        '{"a": 1E-9999999999999999999}',
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a": ' + '{"a": ' * 100_000,
    ],
    ids=lambda text: text[:16] or "empty",
)
def test_what_is_not_json_is_a_failure_of_one_line_that_keeps_the_text(text: str) -> None:
    result = parsed(text)
    assert result.state is State.FAILED
    assert result.failure is not None
    assert result.failure.stage is StageName.PARSE
    assert result.failure.kind is FailureKind.INVALID_JSON
    assert 0 < len(result.failure.message) <= 500
    assert result.failure.message.isprintable()
    assert "decimal." not in result.failure.message
    assert (result.record, result.record_json) == (None, None)
    assert result.raw_text == text


def test_an_answer_that_breaks_the_schema_keeps_its_json() -> None:
    text = GOOD.replace('"EUR"', '"YEN"')
    result = parsed(f" {text}", RECEIPT)
    assert result.state is State.FAILED
    assert result.failure is not None
    assert result.failure.kind is FailureKind.SCHEMA_VIOLATION
    assert result.failure.stage is StageName.PARSE
    assert result.failure.message.startswith("$.currency: 'YEN'")
    assert result.record is None
    assert result.record_json == text


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_json_of_another_type_breaks_the_schema(text: str) -> None:
    result = parsed(text, RECEIPT)
    assert result.failure is not None
    assert result.failure.kind is FailureKind.SCHEMA_VIOLATION


def test_deep_json_that_can_be_read_but_not_checked_is_a_failure_not_a_crash() -> None:
    node = {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False}
    deep = Validator(make_schema(node, "node", "node").document)
    result = parsed('{"a": ' * 900 + "{}" + "}" * 900, deep)
    assert result.state is State.FAILED
    assert result.failure is not None
    assert result.failure.kind in (FailureKind.SCHEMA_VIOLATION, FailureKind.INVALID_JSON)


@pytest.mark.parametrize("text", ['{"merchant": "Caf', GOOD])
def test_a_cut_answer_is_truncated_even_if_it_reads_well(text: str) -> None:
    for result in (
        parse_json(answer(text, FinishReason.LENGTH), RECEIPT.violation),
        parse_text(answer(text, FinishReason.LENGTH)),
    ):
        assert result.state is State.TRUNCATED
        assert result.failure == Failure(
            StageName.GENERATE, FailureKind.TRUNCATED, "the answer was cut at 3 tokens"
        )
        assert (result.record, result.record_json) == (None, None)
        assert result.raw_text == text


def test_a_list_past_the_bound_is_a_cut_answer_that_keeps_its_text() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    schema = {"type": "object", "properties": {"tags": numbers, "box": numbers | {"minItems": 4}}}
    text = '{"tags": [1, 2, 3], "box": [1, 2, 3, 4]}'
    three, two = (Validator(bound_lists(schema, most)).violation for most in (3, 2))
    assert parse_json(answer(text), ANYTHING.violation, three).state is State.OK
    cut = parse_json(answer(text), ANYTHING.violation, two)
    assert cut.state is State.TRUNCATED
    assert cut.failure is not None
    assert "generation.max_items" in cut.failure.message
    assert (cut.raw_text, cut.record_json) == (text, None)


@pytest.mark.parametrize("text", ["Hello", ' two\nlines "quoted" \t', "", "é 東京 \\ \x00 😀"])
def test_a_text_becomes_a_text_record(text: str) -> None:
    result = parse_text(answer(text))
    assert result.state is State.OK
    assert result.record == {"text": text.strip()}
    assert result.record_json is not None
    assert json.loads(result.record_json) == result.record
    assert Validator(load_schema("text.v1").document).violation(result.record) is None


def test_what_failed_before_gets_its_row() -> None:
    failure = Failure(StageName.ENCODE, FailureKind.OUT_OF_MEMORY, "too large", attempt=3)
    result = parse_failed(Failed(ID, failure))
    assert result == PageResult(ID, State.FAILED, failure, attempts=3)
