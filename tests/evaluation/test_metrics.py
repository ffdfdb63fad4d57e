"""When values are the same, how wrong a text is, and which items belong together: by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.metrics import alike, matches, pair_items, record_key
from pipeline.evaluation.shape import Kind, Leaf, List, Object

quick = settings(max_examples=40, deadline=None)

ITEM = Object({"name": Leaf(Kind.STRING), "price": Leaf(Kind.NUMBER)})

names = st.text("abcd", max_size=4)
prices = st.none() | st.integers(0, 3) | st.decimals(0, 3, places=1)
items = st.lists(st.fixed_dictionaries({"name": names, "price": prices}), max_size=6)


@pytest.mark.parametrize(
    ("kind", "truth", "answer"),
    [
        (Kind.NUMBER, Decimal("3.50"), Decimal("3.5")),
        (Kind.NUMBER, 100, Decimal("1E+2")),
        (Kind.NUMBER, "14.74", Decimal("14.74")),
        (Kind.NUMBER, 0.1, Decimal("0.1")),
        (Kind.INTEGER, 2, Decimal("2.0")),
        (Kind.DATE, "2024-03-12", "20240312"),
        (Kind.DATE_TIME, "2024-03-12T10:00:00+02:00", "2024-03-12T08:00:00Z"),
        (Kind.JSON, {"a": [1, None], "b": 2}, {"b": Decimal("2.0"), "a": [1, None]}),
        (Kind.STRING, "Migros", "Migros"),
        (Kind.STRING, None, None),
    ],
)
def test_the_same_value_in_another_form_matches(kind: Kind, truth: Any, answer: Any) -> None:
    assert matches(kind, truth, answer)


@pytest.mark.parametrize(
    ("kind", "truth", "answer"),
    [
        (Kind.NUMBER, Decimal("0.1"), Decimal("0.1000000000000000055511151231257827")),
        (Kind.NUMBER, 1, True),
        (Kind.NUMBER, 0, None),
        (Kind.NUMBER, Decimal("1234.5"), "1,234.50"),
        (Kind.BOOLEAN, True, "true"),
        (Kind.DATE, "2024-03-12", "12/03/2024"),
        (Kind.DATE, "2024-03-12", "2024-12-03"),
        (Kind.STRING, "Migros", "migros"),
        (Kind.STRING, "12", 12),
        (Kind.STRING, "", None),
        (Kind.JSON, [1, 2], [2, 1]),
        (Kind.JSON, [True], [1]),
    ],
)
def test_another_value_does_not_match(kind: Kind, truth: Any, answer: Any) -> None:
    assert not matches(kind, truth, answer)


def test_alike_sets_case_white_space_and_unicode_form_aside() -> None:
    assert alike("Cafe\u0301  Bar", "CAF\u00c9 bar ")
    assert not alike("Cafe Bar", "CafeBar")
    assert not alike("1", 1)


def test_items_pair_by_likeness_and_identical_ones_first() -> None:
    truths = [{"name": "apple", "price": 1}, {"name": "bread", "price": 2}]
    answers = [
        {"name": "breed", "price": 2},
        {"name": "bread", "price": 2},
        {"name": "appel", "price": 1},
    ]
    assert pair_items(ITEM, truths, answers) == ([(0, 2), (1, 1)], 1)


def test_items_with_nothing_in_common_stay_apart() -> None:
    truths = [{"name": "apple", "price": 1}]
    answers = [{"name": "zzz", "price": 9}]
    assert pair_items(ITEM, truths, answers) == ([], 0)


def test_equally_good_pairs_keep_the_printed_order() -> None:
    truths = [{"name": "x", "price": 1}, {"name": "x", "price": 2}]
    answers = [{"name": "x", "price": 3}, {"name": "x", "price": 4}]
    assert pair_items(ITEM, truths, answers) == ([(0, 0), (1, 1)], 0)


@quick
@given(items)
def test_a_list_pairs_with_itself_whole(both: list[Any]) -> None:
    pairs, n_same = pair_items(ITEM, both, both)
    assert n_same == len(both) == len(pairs)


@quick
@given(items, items, st.randoms())
def test_neither_order_nor_side_changes_how_many_are_the_same(
    truths: list[Any], answers: list[Any], random: Any
) -> None:
    shuffled = random.sample(answers, len(answers))
    n_same = pair_items(ITEM, truths, answers)[1]
    assert pair_items(ITEM, truths, shuffled)[1] == n_same
    assert pair_items(ITEM, answers, truths)[1] == n_same


@quick
@given(items, items)
def test_every_item_is_in_one_pair_at_most(truths: list[Any], answers: list[Any]) -> None:
    pairs, n_same = pair_items(ITEM, truths, answers)
    for side in zip(*pairs, strict=True):
        assert len(set(side)) == len(side)
    same = [(i, j) for i, j in pairs if record_key(ITEM, truths[i]) == record_key(ITEM, answers[j])]
    assert len(same) == n_same


@quick
@given(items, st.randoms())
def test_the_order_of_a_list_is_no_part_of_a_record(both: list[Any], random: Any) -> None:
    shuffled = random.sample(both, len(both))
    assert record_key(List(ITEM), both) == record_key(List(ITEM), shuffled)
