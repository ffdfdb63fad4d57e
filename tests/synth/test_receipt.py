import datetime
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from pipeline.synth.receipt import (
    ITEM_NAME_LONGEST,
    MERCHANT_LONGEST,
    Item,
    Receipt,
    invent_receipt,
)
from pipeline.synth.words import Split, split_of

SCHEMA = Path(__file__).parents[2] / "schemas" / "receipt.v1.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=FormatChecker())


def test_the_truth_is_written_as_the_bundled_model_writes_it() -> None:
    receipt = Receipt(
        merchant='A "B" & Co',
        date=datetime.date(2020, 1, 2),
        items=(Item("Tea", 2, Decimal("2.50")), Item("Bun", 1, Decimal("12"))),
        total=Decimal("14.5"),
        currency="EUR",
    )
    assert receipt.to_json() == (
        '{"merchant":"A \\"B\\" & Co","date":"2020-01-02","items":['
        '{"name":"Tea","qty":2,"price":2.50},{"name":"Bun","qty":1,"price":12.00}],'
        '"total":14.50,"currency":"EUR"}'
    )


def test_truth_validates_and_adds_up(validator: Draft202012Validator) -> None:
    for seed in range(300):
        receipt = invent_receipt(random.Random(seed), Split.TRAIN)
        record = json.loads(receipt.to_json(), parse_float=Decimal)
        validator.validate(record)
        of_items = sum(item["price"] for item in record["items"])
        assert record["total"] == of_items - receipt.discount + receipt.added_tax
        assert receipt.subtotal == of_items
        assert receipt.included_tax < receipt.total / 4
        assert len(receipt.merchant) <= MERCHANT_LONGEST
        assert all(len(item.name) <= ITEM_NAME_LONGEST for item in receipt.items)


@pytest.mark.parametrize("split", list(Split))
def test_item_names_are_words_of_the_split(split: Split) -> None:
    receipt = invent_receipt(random.Random(1), split, n_items=100)
    assert {split_of(word) for item in receipt.items for word in item.name.split()} == {split}


def test_pages_divide_the_items_and_repeat_the_rest() -> None:
    receipt = invent_receipt(random.Random(2), Split.TEST, n_items=7)
    pages = receipt.pages(3)
    assert [len(page.items) for page in pages] == [3, 3, 1]
    assert sum((page.items for page in pages), ()) == receipt.items
    assert {(page.merchant, page.date, page.total, page.currency) for page in pages} == {
        (receipt.merchant, receipt.date, receipt.total, receipt.currency)
    }
