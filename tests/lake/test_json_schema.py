from __future__ import annotations

import pytest

from pipeline.lake.json_schema import without_unstated

SCHEMA = {
    "$defs": {"party": {"properties": {"name": {}, "vat": {}}, "required": ["name"]}},
    "properties": {
        "seller": {"anyOf": [{"$ref": "#/$defs/party"}, {"type": "null"}]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/party"}},
        "note": {"type": "string"},
        "total": {"type": ["number", "null"]},
    },
    "required": ["total"],
}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"note": None, "total": None}, {"total": None}),
        ({"note": "", "total": 1}, {"note": "", "total": 1}),
        ({"seller": {"name": None, "vat": None}}, {"seller": {"name": None}}),
        ({"items": [{"name": "a", "vat": None}, None]}, {"items": [{"name": "a"}, None]}),
        ({"unnamed": None}, {"unnamed": None}),
        (None, None),
    ],
)
def test_only_optional_properties_that_the_schema_names_are_left_out(record, expected):
    assert without_unstated(record, SCHEMA, SCHEMA) == expected
