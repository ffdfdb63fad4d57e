from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from pipeline import packaged as packaged_module
from pipeline.errors import SchemaError
from pipeline.packaged import packaged, packaged_names
from pipeline.schema import (
    Schema,
    Validator,
    bound_lists,
    default_prompt,
    load_schema,
    make_schema,
    relax,
    validate,
)

RECEIPT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "receipt.v1",
    "title": "Receipt",
    "description": "A till receipt.",
    "type": "object",
    "required": ["vendor", "total", "lines"],
    "additionalProperties": False,
    "properties": {
        "vendor": {"$ref": "#/$defs/Vendor", "description": "Who sold"},
        "total": {"type": "number", "multipleOf": 0.01, "minimum": 0},
        "date": {"type": ["string", "null"], "format": "date", "description": "Day of sale"},
        "payment": {"enum": ["cash", "card"]},
        "currency": {"const": "EUR"},
        "lines": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "title": "Item name"},
                    "price": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                },
            },
        },
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {
        "Vendor": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "Legal name"},
                "parent": {"anyOf": [{"$ref": "#/$defs/Vendor"}, {"type": "null"}]},
            },
        }
    },
}


def receipt() -> Schema:
    return make_schema(RECEIPT, "x", "receipt.json")


def one_field(field: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": field}, **more}


def parsed(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


# Loading


def test_a_path_is_read_relative_to_its_base(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine.v2.json").write_text(json.dumps(one_field({"type": "number"})))
    schema = load_schema("s/mine.v2.json", tmp_path)
    assert schema.id == "mine.v2"
    assert json.loads(schema.text) == schema.document
    assert schema.sha256 == hashlib.sha256(schema.text.encode()).hexdigest()


def test_the_id_is_the_last_part_of_a_uri() -> None:
    document = one_field(True, **{"$id": "https://example.com/schemas/bill.v3.json"})
    assert make_schema(document, "x", "x").id == "bill.v3"
    assert make_schema(one_field(True), "my file", "x").id == "my-file"


def test_the_order_of_keys_is_part_of_the_schema() -> None:
    one = make_schema({"type": "object", "properties": {"a": {}, "b": {}}}, "x", "x")
    other = make_schema({"type": "object", "properties": {"b": {}, "a": {}}}, "x", "x")
    assert one != other
    assert one == make_schema(json.loads(one.text), "x", "y")
    assert len({one, other}) == 2


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose schemas/ lies beside the package."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "receipt.v1.json").write_text(json.dumps(RECEIPT))
    monkeypatch.setattr(packaged_module.pipeline, "__file__", f"{tmp_path}/pipeline/__init__.py")
    return tmp_path


def test_a_packaged_name(packages: Path) -> None:
    assert load_schema("receipt.v1").document == RECEIPT
    assert packaged("schemas") == packages / "schemas"
    with pytest.raises(SchemaError, match=r"schema recipt\.v1: .* did you mean receipt\.v1\?"):
        load_schema("recipt.v1")
    with pytest.raises(SchemaError, match=r"there are receipt\.v1 \(a path starts with \./\)"):
        load_schema("zzz")


def test_a_wheel_has_its_schemas_inside_the_package(packages: Path) -> None:
    (packages / "pipeline" / "schemas").mkdir()
    (packages / "pipeline" / "schemas" / "inner.json").write_text("{}")
    assert packaged_names("schemas") == ["inner"]


def test_every_schema_that_ships_loads() -> None:
    for name in packaged_names("schemas"):
        schema = load_schema(name)
        assert schema.id == name
        assert default_prompt(schema)
        assert validate(schema, {}) is None or "required" in str(validate(schema, {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ('{"type": "object", "properties": {"x": {"minimum": NaN}}}', "NaN is not a JSON number"),
        ('{"type": "object", "properties": {"x": {"minimum": 1e999}}}', "JSON cannot hold"),
        ('{"type": "object", "properties": {"x": {"const": "\\ud800"}}}', "JSON cannot hold"),
        ("[" * 100_000, "not JSON"),
        ("[]", "#: a schema is a JSON object"),
    ],
)
def test_a_file_that_is_not_a_schema(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SchemaError, match=message) as caught:
        load_schema("./s.json", tmp_path)
    assert str(tmp_path / "s.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no such file"):
        load_schema("./s.json", tmp_path)
    with pytest.raises(SchemaError, match="cannot be read"):
        load_schema("./", tmp_path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (one_field({"type": "strng"}), "#/properties/x/type: 'strng' is not a type; use array"),
        (one_field({"pattern": "("}), "#/properties/x/pattern: .* not a regular expression"),
        (one_field({"minimum": "1"}), "#/properties/x/minimum: '1' is not of type 'number'"),
        (one_field({"$ref": "other.json"}), "#/properties/x/.ref: .* in another file"),
        (one_field({"$ref": "https://example.com/x"}), "in another file; copy it into"),
        (one_field({"$ref": "#/$defs/No"}), "#/properties/x/.ref: .* leads nowhere"),
        (one_field({"items": {"$ref": "#/properties/x"}}), "#/properties/x/items/.ref: .*nowhere"),
        (one_field({"$dynamicRef": "#a"}), "dynamicRef is not supported; use"),
        (one_field({"$id": "inner"}), "#/properties/x/.id: only the top"),
        (one_field({"$ref": "#/$defs/A"}, **{"$defs": {"A": {"$ref": "#/$defs/A"}}}), "itself"),
        (one_field({}, allOf=[{"$ref": "#"}]), "#: '#' refers to itself"),
        (
            one_field(
                {}, **{"$defs": {"A": {"not": {"$ref": "#/$defs/B"}}, "B": {"$ref": "#/$defs/A"}}}
            ),
            "refers to itself",
        ),
        ({"type": "array"}, "#/type: the top must be an object"),
        ({"properties": {"x": {}}}, '#/type: the top must be an object; add "type": "object"'),
        ({"type": "object"}, "#/properties: the object has no fields"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "#/.schema: .* not supported"),
        ({"$ref": "#"}, "itself"),
    ],
)
def test_a_schema_that_cannot_be_used(document: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        make_schema(document, "x", "mine.json")
    assert str(caught.value).startswith("mine.json: #")
    assert "\n" not in str(caught.value)


def test_data_is_not_taken_for_schema() -> None:
    data = {"$ref": "https://example.com", "type": "nonsense"}
    make_schema(one_field({"const": data, "examples": [data], "default": data}), "x", "x")
    make_schema({"type": "object", "properties": {"$ref": {"type": "string"}}}, "x", "x")


def test_a_definition_with_an_odd_name() -> None:
    document = one_field({"$ref": "#/$defs/a~1b%20c"}, **{"$defs": {"a/b c": {"type": "number"}}})
    schema = make_schema(document, "x", "x")
    assert validate(schema, {"x": 1}) is None
    assert validate(schema, {"x": ""}) is not None


# Pydantic

MODULE = """
import datetime
from decimal import Decimal
from typing import Optional
from pydantic import BaseModel, Field

class Line(BaseModel):
    name: str = Field(description="What was bought")
    price: Decimal = Field(ge=0, decimal_places=2)

class Node(BaseModel):
    name: str
    next: Optional["Node"] = None

class Bill(BaseModel):
    '''A bill.'''
    class Inner(BaseModel):
        x: int
    day: datetime.date
    lines: list[Line]

class Hook(BaseModel):
    call: type(print)
    model_config = {"arbitrary_types_allowed": True}

number = 3
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_models.py").write_text(MODULE)
    (tmp_path / "broken_models.py").write_text("1 / 0")
    (tmp_path / "lacking_models.py").write_text("import not_there_at_all")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("shop")
def test_a_pydantic_model() -> None:
    schema = load_schema("shop_models:Bill")
    assert schema.id == "Bill"
    price = schema.document["$defs"]["Line"]["properties"]["price"]
    assert price == {"title": "Price", "type": "number", "minimum": 0.0, "multipleOf": 0.01}
    good = parsed('{"day": "2024-02-29", "lines": [{"name": "tea", "price": 1.10}]}')
    assert validate(schema, good) is None
    assert "- lines[].name (string): What was bought" in default_prompt(schema)
    assert load_schema("shop_models:Bill.Inner").id == "Inner"


@pytest.mark.usefixtures("shop")
def test_a_recursive_pydantic_model_has_its_object_at_the_top() -> None:
    schema = load_schema("shop_models:Node")
    assert schema.document["type"] == "object"
    assert validate(schema, {"name": "a", "next": {"name": "b", "next": None}}) is None
    assert validate(schema, {"name": "a", "next": {"name": 1}}) is not None
    assert default_prompt(schema).splitlines()[2:-1] == [
        "- name (string)",
        "- next (object): Node",
        "- next.name (string)",
        "- next.next (object)",
    ]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("not_a_module:Bill", "no module not_a_module; install it"),
        ("lacking_models:Bill", "no module not_there_at_all"),
        ("broken_models:Bill", "importing broken_models failed: ZeroDivisionError"),
        ("shop_models:Bil", "module shop_models has no Bil"),
        ("shop_models:number", "number is not a pydantic model"),
        ("shop_models:Hook", "has no JSON Schema"),
    ],
)
def test_a_pydantic_model_that_cannot_be_had(ref: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        load_schema(ref)
    assert "\n" not in str(caught.value)


# Validating

GOOD = '{"vendor": {"name": "A"}, "total": 19.99, "lines": [{"name": "tea", "price": null}]}'


def test_a_true_answer_fits() -> None:
    assert validate(receipt(), parsed(GOOD)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total": Decimal("19.995")}, "$.total: 19.995 is not a multiple of 0.01"),
        ({"lines": [{"name": "a"}, {"name": 1}]}, "$.lines[1].name: 1 is not of type 'string'"),
        ({"lines": []}, "$.lines: [] should be non-empty"),
        ({"date": "2023-02-29"}, "$.date: '2023-02-29' is not a 'date'"),
        ({"vendor": {"parent": {"name": 1}}}, "$.vendor.parent.name: 1 is not of type 'string'"),
        ({"total": True}, "$.total: True is not of type 'number'"),
        ({"total": Decimal("NaN")}, "$.total: NaN is not of type 'number'"),
    ],
)
def test_a_violation_is_named_by_its_path(change: dict[str, Any], message: str) -> None:
    assert validate(receipt(), parsed(GOOD) | change) == message


def test_a_violation_is_one_short_printable_line() -> None:
    message = validate(receipt(), parsed(GOOD) | {"new\nkey\x1b": "x" * 5000})
    assert message is not None
    assert message.isprintable()
    assert len(message) <= 300


@pytest.mark.parametrize(
    ("step", "value", "fits"),
    [
        (0.01, "19.99", True),
        (0.01, "1e-2", True),
        (0.01, "0.015", False),
        (0.01, "-0.07", True),
        (0.01, "0", True),
        (0.01, "1e400", True),
        (0.01, "1e999999999", True),
        (0.01, "1e-999999999", False),
        (0.01, "0e-999999999", True),
        (0.1, "0.30000000000000004", False),
        (0.3, "0.9", True),
        (3, "1e30", False),
        (3, "3e30", True),
        (7, "49", True),
        (2.5, "7.5", True),
        (2.5, "8", False),
        (1e-7, "123456789012345678901234567890.1234567", True),
        (1e-7, "123456789012345678901234567890.12345678", False),
    ],
)
def test_multiple_of_is_exact(step: float, value: str, fits: bool) -> None:
    validator = Validator({"multipleOf": step})
    assert (validator.violation(parsed(value)) is None) is fits


@given(st.integers(-(10**12), 10**12), st.integers(0, 6), st.integers(1, 999), st.integers(0, 4))
def test_multiple_of_agrees_with_integers(n: int, places: int, unit: int, unit_places: int) -> None:
    step = float(f"{unit}e-{unit_places}")
    value = Decimal(n).scaleb(-places)
    shift = 10 ** max(places, unit_places)
    whole = n * shift // 10**places, unit * shift // 10**unit_places
    assert (Validator({"multipleOf": step}).violation(value) is None) is (whole[0] % whole[1] == 0)


def test_a_whole_decimal_is_an_integer() -> None:
    validator = Validator({"type": "integer"})
    assert validator.violation(parsed("3.0")) is None
    assert validator.violation(parsed("3e2")) is None
    assert validator.violation(parsed("3.5")) == "$: 3.5 is not of type 'integer'"
    assert validator.violation(True) is not None


@pytest.mark.parametrize(
    ("format", "good", "bad"),
    [
        (
            "date",
            ["2024-02-29", "0001-01-01"],
            ["2023-02-29", "2024-2-9", "٢٠٢٤-01-01"],
        ),
        ("time", ["12:30:00Z", "23:59:60+01:00", "00:00:00.5-12:30"], ["12:30", "24:00:00Z"]),
        (
            "date-time",
            ["2024-02-29T12:30:00Z", "2024-02-29t12:30:00.25+01:00"],
            ["2024-02-30T12:30:00Z", "2024-02-29 12:30:00Z", "2024-02-29"],
        ),
        ("email", ["a@b.example"], ["a.example", "a b@c", "a@"]),
        ("uri", ["https://a.example/b?c#d", "urn:isbn:1"], ["/a/b", "a b:c", "http://[1", "a:%zz"]),
        ("hostname", ["not a host name"], []),
        ("iban", ["anything"], []),
    ],
)
def test_formats(format: str, good: list[str], bad: list[str]) -> None:
    validator = Validator({"format": format})
    assert [value for value in good if validator.violation(value) is not None] == []
    assert [value for value in bad if validator.violation(value) is None] == []
    assert validator.violation(5) is None


def test_an_answer_nested_too_deeply_is_a_violation() -> None:
    document = one_field({"$ref": "#"})
    answer: dict[str, Any] = {}
    for _ in range(5000):
        answer = {"x": answer}
    assert Validator(document).violation(answer) == "$: nested too deeply to be checked"


# Relaxing


def test_a_relaxed_schema_takes_null_and_empty_lists_but_still_all_keys() -> None:
    relaxed = Validator(relax(receipt()))
    nothing: dict[str, Any] = dict.fromkeys(RECEIPT["properties"])
    assert relaxed.violation(nothing) is None
    assert relaxed.violation(nothing | {"lines": []}) is None
    assert (
        relaxed.violation(nothing | {"lines": [{"name": None}], "vendor": {"name": None}}) is None
    )
    assert relaxed.violation({"vendor": None, "lines": None}) == "$: 'total' is a required property"
    assert relaxed.violation(nothing | {"lines": [{}]}) is not None
    assert relaxed.violation(nothing | {"total": "1"}) is not None
    assert relaxed.violation(nothing | {"payment": "gold"}) is not None
    assert relaxed.violation(nothing | {"currency": "USD"}) is not None
    assert relaxed.violation(nothing | {"other": None}) is not None


def test_a_property_is_nullable_whatever_else_judges_it() -> None:
    optional = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    for field in (optional, {**optional, "type": "string"}, {"allOf": [optional, {"const": "a"}]}):
        relaxed = relax(make_schema(one_field(field), "x", "x"))
        assert Validator(relaxed).violation({"x": None}) is None
        assert Validator(relaxed).violation({"x": 1}) is not None
    assert relax(make_schema(one_field(optional), "x", "x"))["properties"]["x"] == optional


def test_relaxing_leaves_the_schema_as_it_was() -> None:
    before = json.dumps(RECEIPT)
    relax(receipt())
    assert json.dumps(RECEIPT) == before


def test_the_grammar_takes_the_relaxed_schema() -> None:
    for document in (RECEIPT, relax(receipt())):
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(document))
        is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
        assert not is_error, messages


scalars = st.sampled_from([None, True, False, 0, 1, 2.5, "", "a", "2024-01-01"])
instances = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
leaves = st.one_of(
    st.sampled_from([True, {}, {"$ref": "#/$defs/D"}, {"$ref": "#"}]),
    st.builds(lambda t: {"type": t}, st.sampled_from(["string", "null", "number", "array"])),
    st.builds(lambda v: {"enum": v}, st.lists(scalars, min_size=1, max_size=3)),
    st.builds(lambda v: {"const": v}, scalars),
    st.builds(lambda n: {"minLength": n, "type": ["string", "null"]}, st.integers(0, 2)),
)


def keyword_sets(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    by_name = st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(["properties", "patternProperties", "dependentSchemas"], by_name),
        **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], several),
        **dict.fromkeys(["items", "contains", "not", "if", "then", "else", "propertyNames"], inner),
        **dict.fromkeys(["additionalProperties", "unevaluatedProperties"], inner | st.just(False)),
        "unevaluatedItems": inner | st.just(False),
        "required": st.lists(st.sampled_from("ab"), unique=True),
        **dict.fromkeys(
            ["minItems", "minProperties", "minContains", "maxItems"], st.integers(0, 2)
        ),
        "uniqueItems": st.booleans(),
    }
    return st.fixed_dictionaries({}, optional=keywords).map(_few)


def _few(schema: dict[str, Any]) -> dict[str, Any]:
    return dict(list(schema.items())[:4])


schemas = st.recursive(leaves, keyword_sets, max_leaves=5)


@settings(max_examples=150, deadline=None)
@given(
    schemas, schemas, schemas, st.fixed_dictionaries({"a": instances}, optional={"b": instances})
)
def test_a_relaxed_schema_takes_whatever_the_true_one_takes(
    a: Any, b: Any, definition: Any, answer: Any
) -> None:
    properties = {"a": a, "b": b}
    document = {"type": "object", "properties": properties, "$defs": {"D": definition}}
    try:
        schema = make_schema(document, "x", "x")
    except SchemaError:  # references that go round
        return
    if validate(schema, answer) is None:
        assert Validator(relax(schema)).violation(answer) is None
    assert Validator(relax(schema)).violation({"a": None, "b": None}) is None


# The default prompt


def test_the_default_prompt_names_every_field() -> None:
    assert default_prompt(receipt()).splitlines() == [
        "Read the page and answer with one JSON object: Receipt: A till receipt.",
        "Fields:",
        "- vendor (object): Who sold",
        "- vendor.name (string): Legal name",
        "- vendor.parent (object)",
        "- total (number)",
        "- date (date as YYYY-MM-DD): Day of sale",
        '- payment (one of "cash", "card")',
        '- currency ("EUR")',
        "- lines (list of object)",
        "- lines[].name (string): Item name",
        "- lines[].price (number)",
        "- tags (list of string)",
        "Write values as the page states them, null for what it does not say, "
        "and [] for an empty list. Answer with the JSON only.",
    ]


def test_the_default_prompt_of_choices() -> None:
    field = {"oneOf": [{"type": "string", "format": "uri"}, {"type": "integer"}, {"type": "null"}]}
    lines = default_prompt(make_schema(one_field(field), "x", "x"))
    assert "- x (URI or integer)" in lines
    nested = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    assert "- x (list of list of number)" in default_prompt(
        make_schema(one_field(nested), "x", "x")
    )
    assert "- x\n" in default_prompt(make_schema(one_field(True), "x", "x"))


def test_lists_are_bounded_wherever_they_are_and_keep_their_own_bounds() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    document = {
        "type": "object",
        "properties": {
            "free": numbers,
            "few": numbers | {"maxItems": 2},
            "many": numbers | {"minItems": 9},
            "maybe": {"type": ["array", "null"]},
            "nested": {"anyOf": [{"type": "object", "properties": {"in": numbers}}]},
            "word": {"type": "string"},
            "sizes": {"type": "array", "enum": [[1, 2, 3, 4, 5, 6]]},
        },
        "$defs": {"all": numbers},
    }
    bounded = bound_lists(document, 5)
    found = bounded["properties"]
    most = {name: found[name].get("maxItems") for name in found}
    assert most == {"free": 5, "few": 2, "many": 9, "maybe": 5, "nested": None} | {
        "word": None,
        "sizes": None,
    }
    assert found["nested"]["anyOf"][0]["properties"]["in"]["maxItems"] == 5
    assert bounded["$defs"]["all"]["maxItems"] == 5
    assert "maxItems" not in numbers
