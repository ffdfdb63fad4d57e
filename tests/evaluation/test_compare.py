"""One answer beside its truth: where each value is counted."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.compare import score, score_record
from pipeline.evaluation.metrics import record_key
from pipeline.evaluation.scores import FieldScore, ListScore, Mismatch, Outcome, Scores
from pipeline.evaluation.shape import Kind, record_shape

quick = settings(max_examples=40, deadline=None)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "shop": {"type": ["string", "null"]},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}},
        "total": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "price": {"type": "number", "x-arrow": "decimal128(12, 2)"},
                    "discounts": {"type": "array", "items": {"type": "number"}},
                },
            },
        },
    },
}
SHAPE = record_shape(SCHEMA)
TRUTH: dict[str, Any] = {
    "shop": "Uwi Foods",
    "address": {"city": "Bern"},
    "total": Decimal("7.50"),
    "tags": ["paid", "cash"],
    "items": [
        {"name": "Bread", "price": 5, "discounts": [1, 2]},
        {"name": "Milk", "price": Decimal("2.5"), "discounts": []},
    ],
}

_texts = st.none() | st.text("ab", max_size=3)
_prices = st.none() | st.integers(0, 2)
_items = st.fixed_dictionaries(
    {"name": _texts, "price": _prices, "discounts": st.lists(st.integers(0, 2), max_size=2)}
)
records = st.fixed_dictionaries(
    {
        "shop": _texts,
        "address": st.none() | st.fixed_dictionaries({"city": _texts}),
        "total": _prices,
        "tags": st.none() | st.lists(st.sampled_from(["a", "b"]), max_size=3),
        "items": st.lists(_items, max_size=3),
    }
)


def changed(**values: Any) -> dict[str, Any]:
    return {**deepcopy(TRUTH), **values}


def test_paths_are_those_of_the_schema() -> None:
    leaves = ["shop", "address.city", "total", "tags[]"]
    items = ["items[].name", "items[].price", "items[].discounts[]"]
    assert list(SHAPE.leaves) == leaves + items
    assert SHAPE.lists == ("tags", "items", "items[].discounts")


def test_a_wrong_value_is_counted_and_named() -> None:
    found = score(SCHEMA, TRUTH, changed(shop="uwi  foods", total=Decimal("7.05")))
    assert not found.exact
    shop = FieldScore(Kind.STRING, wrong=1, alike=1, edits=3, characters=9)
    assert found.fields["shop"] == shop
    assert (shop.accuracy, shop.alike_accuracy, shop.cer) == (0, 1, pytest.approx(3 / 9))
    assert found.fields["total"] == FieldScore(Kind.NUMBER, wrong=1)
    assert found.mismatches == (
        Mismatch("shop", Outcome.WRONG, "Uwi Foods", "uwi  foods"),
        Mismatch("total", Outcome.WRONG, "7.50", "7.05"),
    )


def test_missing_invented_and_rightly_silent_values_are_told_apart() -> None:
    truth = changed(shop=None, address=None)
    found = score(SCHEMA, truth, changed(shop="Kaf", address={}, total=None))
    assert found.fields["shop"] == FieldScore(Kind.STRING, invented=1, edits=3)
    assert found.fields["address.city"] == FieldScore(Kind.STRING, silent=1)
    assert found.fields["total"] == FieldScore(Kind.NUMBER, missing=1)
    shop, city, total = (found.fields[path] for path in ("shop", "address.city", "total"))
    assert (shop.precision, shop.recall, shop.accuracy, shop.cer) == (0, None, 0, None)
    assert (city.precision, city.recall, city.accuracy) == (None, None, 1)
    assert (total.precision, total.recall, total.accuracy) == (None, 0, 0)


def test_items_count_whole_and_by_field() -> None:
    answer = changed(
        items=[
            {"name": "Milk", "price": Decimal("2.50"), "discounts": None},
            {"name": "Bread", "price": 6, "discounts": [2]},
            {"name": "qqq", "price": 99, "discounts": [3]},
        ]
    )
    found = score(SCHEMA, TRUTH, answer)
    items = ListScore(lists=1, count_right=0, truth_items=2, answer_items=3, whole=1)
    assert found.lists["items"] == items
    assert (items.precision, items.recall, items.f1) == (1 / 3, 1 / 2, pytest.approx(2 / 5))
    price = FieldScore(Kind.NUMBER, right=1, wrong=1, extra=1)
    assert found.fields["items[].price"] == price
    assert (price.places, price.accuracy, price.precision) == (2, 1 / 2, 1 / 3)
    assert (price.recall, price.f1) == (1 / 2, pytest.approx(2 / 5))
    name = found.fields["items[].name"]
    assert (name.right, name.extra, name.edits, name.characters) == (2, 1, 3, 9)
    assert found.fields["items[].discounts[]"] == FieldScore(
        Kind.NUMBER, right=1, missing=1, extra=1
    )
    assert found.lists["items[].discounts"] == ListScore(2, 1, 2, 2, 1)
    assert Mismatch("items[0].price", Outcome.WRONG, "5", "6") in found.mismatches
    assert Mismatch("items[2].name", Outcome.EXTRA, None, "qqq") in found.mismatches


def test_without_a_record_nothing_is_right_not_even_silence() -> None:
    truth = changed(shop=None, tags=[])
    found = score(SCHEMA, truth, None)
    assert (found.exact, found.anls) == (False, 0)
    assert found.fields["shop"] == FieldScore(Kind.STRING, unread=1)
    assert found.fields["shop"].accuracy == 0
    assert all(one.correct == 0 for one in found.fields.values())
    assert found.fields["items[].price"].missing == 2
    assert found.lists["tags"] == ListScore(lists=1)
    assert found.lists["items"].count_right == 0


def test_keys_that_the_schema_does_not_name_count_nowhere() -> None:
    found = score(SCHEMA, {**TRUTH, "note": "x"}, {**TRUTH, "other": "y"})
    assert (found.exact, found.anls) == (True, 1)


@quick
@given(records)
def test_a_record_beside_itself_is_right_everywhere(record: dict[str, Any]) -> None:
    found = score_record(SHAPE, record, record)
    assert (found.exact, found.anls, found.mismatches) == (True, pytest.approx(1), ())
    assert all(one.correct == one.places and one.extra == 0 for one in found.fields.values())
    assert all(one.edits == 0 for one in found.fields.values())
    assert all(one.f1 in (1, None) for one in found.lists.values())


@quick
@given(records, records, st.randoms())
def test_the_order_of_the_answers_items_changes_no_list_figure(
    truth: dict[str, Any], answer: dict[str, Any], random: Any
) -> None:
    shuffled = {**answer, "items": random.sample(answer["items"], len(answer["items"]))}
    one, other = score_record(SHAPE, truth, answer), score_record(SHAPE, truth, shuffled)
    assert one.lists["items"] == other.lists["items"]
    assert one.exact == other.exact


@quick
@given(records, records | st.none())
def test_every_value_is_counted_once(truth: dict[str, Any], answer: dict[str, Any] | None) -> None:
    found = score_record(SHAPE, truth, answer)
    places = {path: one.places for path, one in found.fields.items()}
    n_items = len(truth["items"])
    assert places["shop"] == places["total"] == places["address.city"] == 1
    assert places["items[].name"] == places["items[].price"] == n_items
    assert places["tags[]"] == len(truth["tags"] or [])
    if answer is not None:
        extra = found.fields["items[].name"].extra
        assert extra <= len(answer["items"])
        same = record_key(SHAPE.root, truth) == record_key(SHAPE.root, answer)
        assert found.exact == same


def test_many_documents_add_up() -> None:
    scores = Scores()
    scores.add(score_record(SHAPE, TRUTH, TRUTH))
    scores.add(score_record(SHAPE, TRUTH, None), "failed", with_record=False)
    assert (scores.documents, scores.with_record, scores.exact_rate, scores.anls) == (
        2,
        1,
        0.5,
        0.5,
    )
    assert scores.states == {"ok": 1, "failed": 1}
    assert scores.fields["total"] == FieldScore(Kind.NUMBER, right=1, missing=1)
    assert scores.fields["shop"].cer == pytest.approx(0.5)
    assert scores.lists["items"].recall == 0.5
