"""The published schemas: valid, accepted by the grammar compiler, and described throughout."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

SCHEMAS = sorted((Path(__file__).parents[2] / "schemas").glob("*.json"))
RECEIPT = (
    '{"merchant":"X","date":"%(date)s","items":[{"name":"A","qty":%(qty)s,"price":%(price)s}],'
    '"total":2.50,"currency":"%(currency)s"}'
)
GOOD = {"date": "2020-01-02", "qty": "1", "price": "2.50", "currency": "EUR"}


def load(name: str) -> dict[str, Any]:
    (path,) = (path for path in SCHEMAS if path.name == f"{name}.json")
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects(value)


def accepts(schema: dict[str, Any], text: str) -> bool:
    compact = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema, overrides=compact))
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_schemas_are_valid_closed_and_described(path: Path) -> None:
    schema = load(path.stem)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == path.stem
    assert schema["title"]
    for each in objects(schema):
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
        assert all(value.get("description") for value in each["properties"].values())


def test_the_built_in_schemas_are_there() -> None:
    assert {path.stem for path in SCHEMAS} >= {
        *("receipt.v1", "invoice.v1", "ticket.v1", "text.v1", "answer.v1"),
    }


@pytest.mark.parametrize("price", ["2.50", "12.00", "0.01", "-0.10", "-3.00", "1234567.89"])
def test_the_receipt_grammar_takes_amounts(price: str) -> None:
    assert accepts(load("receipt.v1"), RECEIPT % {**GOOD, "price": price})


@pytest.mark.parametrize(
    "wrong",
    [
        {"date": "2020-13-02"},
        {"date": "02.01.2020"},
        {"qty": "0"},
        {"qty": "10000"},
        {"qty": "1.5"},
        {"price": '"2.50"'},
        {"price": "02.50"},
        {"currency": "JPY"},
    ],
    ids=str,
)
def test_the_receipt_grammar_refuses(wrong: dict[str, str]) -> None:
    assert not accepts(load("receipt.v1"), RECEIPT % {**GOOD, **wrong})


@pytest.mark.parametrize(("time", "right"), [("00:00", True), ("23:59", True), ("24:00", False)])
def test_the_ticket_grammar_takes_times_of_a_day(time: str, right: bool) -> None:
    ticket = (
        '{"origin":"A","destination":"B","date":"2020-01-02","departure":"%s","seat":"1A",'
        '"fare":"adult","price":2.50}'
    )
    assert accepts(load("ticket.v1"), ticket % time) is right


def test_an_invoice_with_nulls_is_accepted() -> None:
    address = dict.fromkeys(["street", "postal_code", "city", "region", "country"])
    parties = ["name", "address", "tax_id"]
    invoice = {
        "invoice_number": "2020-17",
        "issue_date": "2020-01-02",
        "due_date": None,
        "purchase_order": None,
        "currency": "EUR",
        "vendor": {**dict.fromkeys([*parties, "email", "phone", "iban"]), "address": address},
        "customer": {**dict.fromkeys(parties), "address": {**address, "city": "Bern"}},
        "lines": [
            {
                "description": "Work",
                "quantity": 1.5,
                "unit": "h",
                "unit_price": 80.125,
                "tax_rate": 19,
                "amount": 120.19,
            }
        ],
        "taxes": [{"rate": 19, "base": 120.19, "amount": 22.84}],
        "totals": {"net": 120.19, "tax": 22.84, "gross": 143.03, "paid": None, "due": 143.03},
        "payment_terms": None,
    }
    schema = load("invoice.v1")
    Draft202012Validator(schema).validate(invoice)
    assert accepts(schema, json.dumps(invoice, separators=(",", ":")))
