"""Mutated model answers through parse, write and assemble: one row each, that reads back."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from fuzz_frame import Escape, require_one_line
from mutate import text_mutate

from pipeline.lake.exact_json import loads
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger
from pipeline.lake.types import arrow_type
from pipeline.records import (
    Answer,
    Document,
    FinishReason,
    Generation,
    MediaType,
    PageResult,
    Plan,
    Provenance,
    SampleId,
    State,
)
from pipeline.schema import Schema, Validator, load_schema, make_schema, relax
from pipeline.schema.walk import resolve
from pipeline.stages.assemble import assemble
from pipeline.stages.parse import parse_json, parse_text
from pipeline.stages.write import write_pages

_ODD = {
    "type": "object",
    "$defs": {"node": {"type": "object", "properties": {"in": {"$ref": "#/$defs/node"}}}},
    "properties": {
        "any": {},
        "number": {"type": "number", "minimum": -5, "exclusiveMaximum": 1e300},
        "whole": {"type": ["integer", "null"]},
        "cents": {"type": "number", "multipleOf": 0.01},
        "exact": {"type": "number", "x-arrow": "decimal128(12, 2)"},
        "day": {"type": "string", "format": "date"},
        "moment": {"type": "string", "format": "date-time"},
        "where": {"type": "string", "format": "uri"},
        "set": {"type": "array", "uniqueItems": True},
        "tree": {"$ref": "#/$defs/node"},
        "map": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
        "either": {"oneOf": [{"type": "integer"}, {"type": "number"}, {"type": "string"}]},
        "chosen": {"enum": [1, "a", None, [1.0], {"a": True}]},
        "code": {"type": "string", "pattern": "^(a|b|ab)*c$", "maxLength": 20},
    },
    "required": ["number"],
}
SCHEMAS: Mapping[str, Schema] = {
    "odd": make_schema(_ODD, "odd", "odd"),
    **{name: load_schema(name) for name in ("receipt.v1", "invoice.v1", "text.v1")},
}
_DEPTHS = (50, 98, 99, 100, 101, 400, 960, 5_000)
NASTIES = (
    *("1e999999999", "-1e999999999", "1e-999999999", "1e9999999999999999999", "0e-999999999"),
    *(
        "9" * 19,
        "9" * 400,
        "9" * 5_000,
        "0." + "1" * 4_290,
        "0." + "1" * 5_000,
        "1" * 100_000 + ".5",
    ),
    *("NaN", "-Infinity", "-0", "1.0", "1e2", "1E400", "0.1", "true", "null", "[]", "{}", '""'),
    *('"2024-02-30"', '"9999-12-31"', '"0001-01-01T00:00:00+23:59"', '"2024-06-30T23:59:60Z"'),
    *(
        '"9999-12-31T23:59:59-23:59"',
        '"\\u0000"',
        '"\\ud800"',
        '{"\\udc00": 1}',
        '"\ud800"',
        '"\u202e\x7f"',
    ),
    *('"' + "ab" * 9 + '"', '{"a": 1, "a": 2}', '{"in": {"in": 1}}', "[1, 1.0, true]"),
    *("[" * depth + "]" * depth for depth in _DEPTHS),
    *('{"in":' * depth + "{}" + "}" * depth for depth in _DEPTHS),
)
HUGE = (
    *('"' + "a" * 1_000_000 + '"', "[" + "0," * 100_000 + "0]", "[" + "{}," * 100_000 + "{}]"),
    "[" + ",".join(f'{{"a":{n}}}' for n in range(20_000)) + "]",
)
_PROVENANCE = Provenance("r1", "extract", "s.v1", "nano", "rev", "prompt", "0.1.0", "f1")
_BREAK = b"\f\n"


def instance(chance: random.Random, schema: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """Return a value that mostly fits a schema."""
    if "$ref" in schema:
        return instance(chance, resolve(root, schema["$ref"]), root, depth + 1)
    for branches in ("anyOf", "oneOf"):
        if branches in schema:
            return instance(chance, chance.choice(schema[branches]), root, depth)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    types = schema.get("type", "string")
    match types if isinstance(types, str) else chance.choice(types):
        case "object":
            wanted = schema.get("properties", {"x": {}}) if depth < 4 else {}
            named = {name: instance(chance, one, root, depth + 1) for name, one in wanted.items()}
            required = schema.get("required", ())
            return {k: v for k, v in named.items() if k in required or chance.random() < 0.7}
        case "array":
            items = schema.get("items", {})
            return [instance(chance, items, root, depth + 1) for _ in range(chance.randrange(4))]
        case "number":
            return chance.choice((0, 1.5, -2, 12.34, 1000000))
        case "integer":
            return chance.randrange(-3, 1000)
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
    known = {"date": "2024-05-06", "date-time": "2024-05-06T07:08:09Z", "uri": "https://x.org"}
    return known.get(schema.get("format", ""), chance.choice(("", "abc", "Größe \u20ac", "aab")))


class Answers:
    """One document a case: the name of its schema, why the model stopped, and a text a page."""

    name = "answer"

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # what is written is flushed, which takes its time on a disk
        self._folder = Path(
            tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.exists() else None)
        )
        self._judges = {
            name: (Validator(schema.document).violation, Validator(relax(schema)).violation)
            for name, schema in SCHEMAS.items()
        }
        self._types = {name: arrow_type(schema.document) for name, schema in SCHEMAS.items()}

    def make(self, chance: random.Random) -> tuple[str, bytes]:
        name = chance.choice(("odd", "odd", "receipt.v1", "invoice.v1", "text.v1"))
        stopped = chance.choice((*["stop"] * 9, "length"))
        ways, pages = set(), []
        for _ in range(chance.choice((1, 1, 2, 3))):
            way, text = self._page(chance, SCHEMAS[name].document)
            ways.add(way)
            pages.append(text)
        head = f"{name} {stopped}\n".encode()
        texts = _BREAK.join(text.encode("utf-8", "surrogatepass") for text in pages)
        return " ".join(sorted(ways)), head + texts

    def _page(self, chance: random.Random, document: Mapping[str, Any]) -> tuple[str, str]:
        value = instance(chance, document, document)
        way = chance.choice(("none", "text", "nasty", "nasty", "nasty", "alone"))
        nasty = chance.choice(HUGE if chance.random() < 0.03 else NASTIES)
        if way == "alone":
            return way, nasty
        if way == "nasty" and value:
            value[chance.choice(list(value))] = "@@@"
            if chance.random() < 0.2:
                value["\ud800" if chance.random() < 0.2 else "extra"] = "@@@"
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
        text = text.replace('"@@@"', nasty)
        return way, text_mutate(chance, text, ())[1] if way == "text" else text

    def judge(self, case: bytes) -> str:
        head, _, rest = case.partition(b"\n")
        name, stopped = head.decode().split()
        texts = [text.decode("utf-8", "surrogatepass") for text in rest.split(_BREAK)]
        results = [
            self._parse(name, stopped, number, len(texts), text)
            for number, text in enumerate(texts, 1)
        ]
        folder = self._folder / "output"
        shutil.rmtree(folder, ignore_errors=True)
        layout = Layout.open(str(folder))
        layout.prepare()
        ledger = Ledger(layout)
        write_pages(ledger, results, [{}] * len(results), _PROVENANCE, self._types[name])
        rows = [row for file in ledger.page_files() for row in _read(folder / file)]
        self._check(rows, len(texts))

        listed = Document("/in/d.pdf", 1, "m", MediaType.PDF)
        planned = Plan(listed, "d", len(texts), tuple(range(1, len(texts) + 1)))
        whole, _ = self._judges[name]
        assemble(ledger, [planned], _PROVENANCE, SCHEMAS[name].document, whole)
        documents = [row for file in ledger.document_files() for row in _read(folder / file)]
        self._check(documents, 1)
        return f"{documents[0]['state']} {documents[0]['failure_kind'] or ''}".strip()

    def _parse(self, name: str, stopped: str, number: int, n_pages: int, text: str) -> PageResult:
        sample = SampleId("d", "/in/d.pdf", n_pages, (number,))
        answer = Answer(sample, Generation(text, (1,), (0.0,), FinishReason(stopped), 1))
        if name == "text.v1":
            return parse_text(answer)
        whole, part = self._judges[name]
        return parse_json(answer, whole if sample.whole else part)

    def _check(self, rows: list[dict[str, Any]], expected: int) -> None:
        if len(rows) != expected:
            raise Escape(f"{len(rows)} rows, not {expected}")
        for row in rows:
            failed = row["failure_kind"] is not None
            if failed == (State(row["state"]) is State.OK):
                raise Escape(f"{row['state']} with failure {row['failure_kind']}")
            if failed:
                require_one_line(row["failure_message"], 500)
            if row["state"] == State.OK:
                loads(row["record_json"])
            if row["processed_at"] > datetime.now(UTC):
                raise Escape("a row from the future")

    def close(self) -> None:
        shutil.rmtree(self._folder)


def _read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
