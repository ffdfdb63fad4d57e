from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from pipeline.errors import ItemError
from pipeline.lake.types import arrow_type
from pipeline.lake.values import converter, to_arrow
from pipeline.records import FailureKind

MONEY = {"type": "number", "x-arrow": "decimal128(12, 2)"}
DATE = {"type": "string", "format": "date"}
TIME = {"type": "string", "format": "date-time"}
NOON = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)


def stored(schema: object, value: object) -> object:
    type_ = arrow_type({"properties": {"x": schema}})
    return pa.array([to_arrow({"x": value}, type_)], type=type_)[0].as_py()["x"]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (MONEY, Decimal("1234567890.12"), Decimal("1234567890.12")),
        (MONEY, Decimal("1.500"), Decimal("1.50")),
        (MONEY, 7, Decimal("7.00")),
        (MONEY, "0.10", Decimal("0.10")),
        (MONEY, Decimal("1E+9"), Decimal("1000000000.00")),
        (DATE, "2024-02-29", dt.date(2024, 2, 29)),
        (TIME, "2024-02-29T12:00:00Z", NOON),
        (TIME, "2024-02-29t13:30:00.000000000+01:30", NOON),
        ({"type": "integer"}, Decimal("3.0"), 3),
        ({"type": "integer"}, -(2**63), -(2**63)),
        ({"type": "number"}, Decimal("0.1"), 0.1),
        ({"type": "boolean"}, False, False),
        ({"type": "array", "items": MONEY}, [1, None], [Decimal("1.00"), None]),
        ({}, {"a": [Decimal("1.10"), "x"]}, '{"a":[1.10,"x"]}'),
        ({}, "x", '"x"'),
        ({"type": "string"}, "x", "x"),
        ({"type": "string"}, None, None),
        ({"type": "array", "items": {}}, ["x"], ['"x"']),
    ],
)
def test_a_value_that_fits_is_stored_exactly(schema, value, expected):
    assert stored(schema, value) == expected


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (MONEY, Decimal("1.005"), "record.x: 1.005 does not fit decimal128(12, 2) exactly"),
        (MONEY, Decimal("12345678901.00"), "does not fit decimal128"),
        (MONEY, Decimal("1E+999999"), "does not fit decimal128"),
        (MONEY, 0.1, "is not an exact number"),
        (MONEY, "ten", "does not fit decimal128"),
        (DATE, "2024-02-30", "record.x: '2024-02-30' is not a date"),
        (DATE, "20240229", "is not a date"),
        (TIME, "2024-02-29T12:00:00", "with an offset"),
        (TIME, "2024-02-29T12:00:00.1234567Z", "in microseconds"),
        (TIME, "0001-01-01T00:00:00+10:00", "is not a date-time"),
        ({"type": "integer"}, 2**63, "does not fit int64"),
        ({"type": "integer"}, Decimal("1.5"), "is not an integer"),
        ({"type": "integer"}, True, "is not an integer"),
        ({"type": "number"}, Decimal("1E+400"), "does not fit float64"),
        ({"type": "number"}, "1", "is not a number"),
        ({"type": "boolean"}, 1, "is not true or false"),
        ({"type": "string"}, "\ud800", "surrogate"),
        ({}, "\ud800", "surrogate"),
        ({"type": "array", "items": MONEY}, [Decimal("0.001")], "record.x[]: 0.001 does not fit"),
        ({"type": "array", "items": MONEY}, 3, "is not an array"),
        ({"properties": {"a": DATE}}, {"a": 1}, "record.x.a: 1 is not a string"),
        ({"properties": {"a": DATE}}, "a", "is not an object"),
    ],
)
def test_a_value_that_does_not_fit_is_a_schema_violation(schema, value, message):
    with pytest.raises(ItemError) as caught:
        stored(schema, value)
    assert caught.value.kind is FailureKind.SCHEMA_VIOLATION
    assert message in caught.value.message
    assert caught.value.message.isprintable()


def test_a_record_that_is_not_an_object_is_json_text():
    type_ = arrow_type({"type": ["string", "integer"]})
    assert [converter(type_)(value) for value in ("a", 1, None)] == ['"a"', "1", None]
