from __future__ import annotations

from decimal import Decimal

import pytest

from pipeline.lake.merge import merge_records


def conflict(page: int, value: object) -> dict[str, object]:
    return {"page": page, "value": value}


@pytest.mark.parametrize(
    ("records", "record", "conflicts", "field_pages"),
    [
        pytest.param([None, None], None, {}, {}, id="nothing said"),
        pytest.param([{"a": None}, {"a": 2}], {"a": 2}, {}, {"a": 2}, id="first stated"),
        pytest.param([{"a": None}, {"a": None}], {"a": None}, {}, {}, id="never stated"),
        pytest.param([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}, {}, {"a": 1, "b": 2}, id="union"),
        pytest.param(
            [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 3}],
            {"a": 1},
            {"a": [conflict(2, 2), conflict(4, 3)]},
            {"a": 1},
            id="conflict",
        ),
        pytest.param(
            [{"a": Decimal("1.0")}, {"a": 1}],
            {"a": Decimal("1.0")},
            {},
            {"a": 1},
            id="equal number",
        ),
        pytest.param(
            [{"a": True}, {"a": 1}],
            {"a": True},
            {"a": [conflict(2, 1)]},
            {"a": 1},
            id="true is not 1",
        ),
        pytest.param(
            [{"o": {"x": 1}}, None, {"o": {"x": 5, "y": 2}}, {"o": None}],
            {"o": {"x": 1, "y": 2}},
            {"o.x": [conflict(3, 5)]},
            {"o.x": 1, "o.y": 3},
            id="objects",
        ),
        pytest.param(
            [{"l": [1, 2]}, {"l": None}, {"l": []}, {"l": [{"x": 2}]}],
            {"l": [1, 2, {"x": 2}]},
            {},
            {"l[0]": 1, "l[1]": 1, "l[2]": 4},
            id="lists",
        ),
        pytest.param([{"l": []}, {"l": []}], {"l": []}, {}, {}, id="empty lists"),
        pytest.param(
            [{"a": "x"}, {"a": {"b": 1}}],
            {"a": "x"},
            {"a": [conflict(2, {"b": 1})]},
            {"a": 1},
            id="different kinds",
        ),
        pytest.param([[1], [2]], [1, 2], {}, {"[0]": 1, "[1]": 2}, id="a list of records"),
    ],
)
def test_merge(records, record, conflicts, field_pages):
    merged = merge_records(list(enumerate(records, start=1)))
    assert merged.record == record
    assert merged.conflicts == conflicts
    assert merged.field_pages == field_pages


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([{"text": "a"}, {"text": "b"}], "a\fb"),
        ([{"text": "a"}, None, {"text": None}, {"text": "d"}], "a\f\f\fd"),
        ([{"text": None}, {"text": None}], None),
    ],
)
def test_joined_text_keeps_a_piece_for_every_page(records, text):
    merged = merge_records(list(enumerate(records, start=1)), frozenset({"text"}))
    assert merged.record == {"text": text}
    assert merged.conflicts == {}
