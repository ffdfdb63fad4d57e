"""Mutated manifests of inputs, commits, manifests of outputs, and schemas."""

from __future__ import annotations

import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import mutate
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_frame import require_one_line

from pipeline.engine.grammar import check_schema
from pipeline.errors import UserError
from pipeline.job import Input
from pipeline.lake.layout import COMMITS, MANIFEST, Layout
from pipeline.lake.ledger import Commit, Counts, Ledger, Manifest
from pipeline.lake.types import arrow_type
from pipeline.packaged import packaged_file
from pipeline.records import Provenance
from pipeline.schema import Validator, bound_lists, default_prompt, load_schema, relax
from pipeline.stages.discover import discover

_NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
_COMMIT = Commit("r1", "f1", "a", "pages/a.parquet", 1, {"ok": 1}, {"encrypted": 2}, _NOW)
_MANIFEST = Manifest(
    Provenance("r1", "extract", "s.v1", "nano", "rev", "prompt", "0.1.0", "f1"),
    *({"type": "object"}, ("r1",), ("pages/a.parquet",), ("documents/a.parquet",)),
    *(("_pagelake/runs/r1/plans.parquet",), Counts({"ok": 1}, {"ok": 1}), _NOW, {"a": "x"}),
)


def _parquet() -> bytes:
    file = io.BytesIO()
    columns = {
        "uri": pa.array(["a.pdf", "b.png", None, "a.pdf"]),
        "n": pa.array([1, 2, 3, 4]),
        "day": pa.array([_NOW] * 4),
        "kind": pa.array(["x", "y", "x", "y"]).dictionary_encode(),
        "raw": pa.array([b"a", b"\xff", b"", None]),
    }
    pq.write_table(pa.table(columns), file, compression="none")
    return file.getvalue()


_CSV = 'uri,shop,note\na.pdf,Ä,"x, y"\n"b.png",B,"two\nlines"\nmissing.pdf,,\n'
_POOL = ('"', ",,", "\r\n", "\x00", "../../etc/passwd", "file:///etc/passwd", "x" * 140_000)
_POOL += (
    '{"$ref": "#"}',
    '"$ref": "https://example.org/x.json",',
    '"pattern": "(a+)+$",',
    '"type": "object",',
)
_POOL += (
    '"minItems": 1e400,',
    '"properties": {},',
    '"$ref": "#/$defs/x",',
    '"items": {"$ref": "#"},',
)
_POOL += (
    '"format_version": 2,',
    "pages/../../x",
    '"allOf": [{"$ref": "#"}],',
    '"enum": [],',
    "1e400,",
)


class Papers:
    """A case's first line says what it is, and the rest is it."""

    name = "paper"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        for name in ("a.pdf", "b.png"):
            (self._folder / name).write_bytes(b"%PDF-")
        self._layout = Layout.open(str(self._folder / "output"))
        self._layout.prepare()
        schemas = ("receipt.v1", "invoice.v1")
        self._texts = {
            "csv": (_CSV,),
            "commit": (_COMMIT.to_json(),),
            "manifest": (_MANIFEST.to_json(),),
            "schema": tuple(packaged_file("schemas", name).read_text() for name in schemas),
        }
        self._judges: dict[str, Callable[[bytes], object]] = {
            "csv": lambda data: self._list("table.csv", data),
            "parquet": lambda data: self._list("table.parquet", data),
            "commit": lambda data: self._look(f"{COMMITS}/a.json", data),
            "manifest": lambda data: self._look(MANIFEST, data),
            "schema": self._schema,
        }

    def make(self, chance: random.Random) -> tuple[str, bytes]:
        kind = chance.choice(list(self._judges))
        if kind == "parquet":
            _, mutator = chance.choice(list(mutate.BYTES.items()))
            data = mutator(chance, _parquet(), _parquet())
        else:
            _, text = mutate.text_mutate(chance, chance.choice(self._texts[kind]), _POOL)
            data = text.encode("utf-8", "surrogatepass")
            if chance.random() < 0.2 and data:
                data = mutate.BYTES["flip bits"](chance, data, b"")
        return kind, kind.encode() + b"\n" + data

    def judge(self, case: bytes) -> str:
        kind, _, data = case.partition(b"\n")
        try:
            self._judges[kind.decode()](data)
        except UserError as error:
            require_one_line(str(error), 1_000)
            return type(error).__name__
        return "read"

    def _list(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.write_bytes(data)
        for document in discover(Input(manifest=str(path))):
            json.dumps([document.uri, dict(document.source)])

    def _look(self, name: str, data: bytes) -> None:
        self._layout.write_bytes(name, data)
        try:
            snapshot = Ledger(self._layout).snapshot()
            snapshot.orphans()
        finally:
            self._layout.delete(name)

    def _schema(self, data: bytes) -> None:
        path = self._folder / "schema.json"
        path.write_bytes(data)
        schema = load_schema(str(path))
        for document in (schema.document, relax(schema), bound_lists(schema.document, 9)):
            check_schema(document, schema.id)
            Validator(document).violation({"a": [1, {"b": None}], "total": 1})
        arrow_type(schema.document)
        default_prompt(schema)

    def close(self) -> None:
        shutil.rmtree(self._folder)
