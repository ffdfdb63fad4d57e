from __future__ import annotations

import pickle

import pyarrow as pa
import pytest
from pydantic import BaseModel

from pipeline.errors import SchemaError
from pipeline.lake.types import arrow_type, holds_json

TIME = pa.timestamp("us", "UTC")


def of(property_schema: object, **root: object) -> pa.Field:
    return arrow_type({"type": "object", "properties": {"x": property_schema}, **root}).field("x")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, pa.string()),
        ({"type": "string", "format": "date"}, pa.date32()),
        ({"type": "string", "format": "date-time"}, TIME),
        ({"type": "string", "format": "time"}, pa.string()),
        ({"type": "integer"}, pa.int64()),
        ({"type": "number"}, pa.float64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"type": "number", "x-arrow": "decimal128(12, 2)"}, pa.decimal128(12, 2)),
        ({"type": "boolean"}, pa.bool_()),
        ({"type": ["string", "null"], "format": "date"}, pa.date32()),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, pa.int64()),
        ({"oneOf": [{"const": None}, {"type": "boolean"}]}, pa.bool_()),
        ({"anyOf": [{"const": "a"}, {"enum": ["b", "c"]}]}, pa.string()),
        ({"enum": ["a", "b", None]}, pa.string()),
        ({"enum": [1, 2]}, pa.int64()),
        ({"const": True}, pa.bool_()),
        ({"$ref": "#/$defs/day"}, pa.date32()),
        ({"$ref": "#/$defs/money", "x-arrow": "decimal128(9,3)"}, pa.decimal128(9, 3)),
        ({"allOf": [{"$ref": "#/$defs/day"}], "title": "X"}, pa.date32()),
        ({"type": "array", "items": {"type": "string"}}, pa.list_(pa.string())),
        ({"properties": {"a": {"type": "integer"}}}, pa.struct([("a", pa.int64())])),
        (
            {
                "allOf": [
                    {"properties": {"a": {"type": "integer"}}},
                    {"properties": {"b": {"type": "string"}}},
                ]
            },
            pa.struct([("b", pa.string()), ("a", pa.int64())]),
        ),
    ],
)
def test_a_type_for_what_arrow_can_hold(schema, expected):
    defs = {"day": {"type": "string", "format": "date"}, "money": {"type": "number"}}
    field = of(schema, **{"$defs": defs})
    assert field.type == expected
    assert not holds_json(field)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "null"},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"type": ["string", "integer"]},
        {"enum": ["a", 1]},
        {"anyOf": [{"type": "string"}, {"type": "number"}]},
        {"anyOf": [{"type": "string"}, {}]},
        {"$ref": "#"},
    ],
)
def test_json_text_for_the_rest(schema):
    field = of(schema)
    assert field.type == pa.string()
    assert holds_json(field)


def test_fields_keep_the_order_of_the_properties():
    schema = {"properties": {name: {"type": "string"} for name in "zaq"}}
    assert [field.name for field in arrow_type(schema)] == ["z", "a", "q"]


def test_recursion_ends_in_json_text():
    class Node(BaseModel):
        name: str
        children: list[Node] | None

    node = arrow_type(Node.model_json_schema())
    assert node.field("name").type == pa.string()
    assert holds_json(node.field("children").type.value_field)


def test_the_json_mark_travels_with_the_type():
    copy = pickle.loads(pickle.dumps(arrow_type({"properties": {"x": {}}})))
    assert holds_json(copy.field("x"))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "https://example.org/s.json"}, "not local"),
        ({"$ref": "#/$defs/none"}, "points at nothing"),
        ({"$ref": "#/properties/x"}, "leads back to itself"),
        ({"x-arrow": "decimal64(3)"}, "is unknown"),
        ({"x-arrow": "decimal128(40, 2)"}, "at most 38 digits"),
    ],
)
def test_a_schema_that_cannot_be_read_says_why(schema, message):
    with pytest.raises(SchemaError, match=message):
        of(schema)
