"""Rows as people write them, and as runs leave them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.finetune.answers import in_order
from pipeline.finetune.data import Exchange, Row, read_rows, split

RECORD = pa.struct([("total", pa.float64()), ("day", pa.date32())])


def lines(folder: Path, *rows: Any) -> str:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(file)


def output(folder: Path, *rows: dict[str, Any]) -> str:
    schema = pa.schema(
        [
            ("uri", pa.string()),
            ("state", pa.string()),
            ("record", RECORD),
            ("record_json", pa.string()),
        ]
    )
    (folder / "out" / "documents").mkdir(parents=True)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, folder / "out" / "documents" / "a.parquet")
    return str(folder / "out")


def test_lines_say_documents_pages_and_answers(tmp_path: Path) -> None:
    file = lines(
        tmp_path,
        '{"uri": "a/b.pdf", "pages": [1, 3], "answer": {"total": 12.50}}',
        {"uri": "/x.pdf", "pages": "2-", "question": "Why?", "answer": "So."},
        {"uri": "s3://y/z.pdf", "turns": [{"answer": {}}, {"question": "q", "answer": "a"}]},
    )
    first, second, third = read_rows(file)
    assert (first.uri, first.pages) == (str(tmp_path / "a/b.pdf"), "1,3")
    assert first.exchanges == (Exchange(None, {"total": Decimal("12.50")}),)
    assert (second.uri, second.exchanges) == ("/x.pdf", (Exchange("Why?", "So."),))
    assert (third.uri, third.pages) == ("s3://y/z.pdf", None)
    assert third.exchanges == (Exchange(None, {}), Exchange("q", "a"))


def test_parquet_has_the_same_as_columns(tmp_path: Path) -> None:
    turns = [{"question": None, "answer": '{"a": 1}'}, {"question": "q", "answer": "b"}]
    file = tmp_path / "rows.parquet"
    rows = [{"uri": "a.pdf", "pages": [1], "answer": "x"}, {"uri": "b.pdf", "turns": turns}]
    pq.write_table(pa.Table.from_pylist([{"turns": None, **row} for row in rows]), file)
    first, second = read_rows(str(file))
    assert (first.pages, first.exchanges) == ("1", (Exchange(None, "x"),))
    assert second.exchanges == (Exchange(None, '{"a": 1}'), Exchange("q", "b"))


def test_of_a_corrected_output_the_documents_that_are_ok_are_taken(tmp_path: Path) -> None:
    good = {"uri": "/a.pdf", "state": "ok", "record_json": '{"total": 1.5}'}
    typed = {"total": 2.5, "day": None}
    folder = output(
        tmp_path,
        {**good, "record": {"total": 1.5}},
        {**good, "record": None},
        {**good, "record": typed, "record_json": None},
        {**good, "state": "truncated"},
    )
    rows = read_rows(folder)
    assert [row.exchanges[0].answer for row in rows[:2]] == ['{"total": 1.5}'] * 2
    assert rows[2].exchanges == (Exchange(None, {"total": Decimal("2.5"), "day": None}, True),)
    assert len(rows) == 3


def test_a_record_that_was_corrected_in_one_of_two_places_is_named(tmp_path: Path) -> None:
    row = {"uri": "/a.pdf", "state": "ok", "record": {"total": 2}, "record_json": '{"total": 1}'}
    with pytest.raises(InputError, match=r"a\.parquet: row 1: its record and its record_json"):
        read_rows(output(tmp_path, row))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"answer": {}}, 'has no "uri"'),
        ({"uri": "a"}, 'has no "answer"'),
        ({"uri": "a", "answer": 3}, "answer: write a JSON object, or text"),
        ({"uri": "a", "answer": {}, "pages": [True]}, "pages: write a list of numbers"),
        ({"uri": "a", "answer": {}, "turns": [{"answer": "b"}]}, "put it into a turn"),
        ({"uri": "a", "turns": [{"answer": "b"}, {"answer": "c"}]}, r"turns\[1\]: has no question"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, row: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=f"line 2: .*{complaint}"):
        read_rows(lines(tmp_path, {"uri": "a", "answer": {}}, row))


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_rows(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"without documents/\*\.parquet"):
        read_rows(str(tmp_path))


def test_a_document_is_learned_or_kept_but_not_both() -> None:
    rows = [Row(f"row {n}", f"{n // 2}.pdf", None, ()) for n in range(20)]
    learned, kept = split(rows, 0.2, seed=1)
    assert len(kept) == 4
    assert not {row.uri for row in learned} & {row.uri for row in kept}
    assert (learned, kept) == split(rows, 0.2, seed=1)
    assert split(rows, 0, seed=1) == (rows, [])


def test_keys_are_written_in_the_schemas_order_at_any_depth() -> None:
    inner = {"properties": {"b": {}, "a": {}}}
    schema = {
        "properties": {"y": {"type": "array", "items": {"$ref": "#/$defs/i"}}, "x": {}},
        "$defs": {"i": {"anyOf": [inner, {"properties": {"c": {}}}, {"type": "null"}]}},
    }
    value = {"x": 1, "z": 0, "y": [{"c": 3, "a": 2, "b": 1}, None]}
    assert list(in_order(value, schema, schema)) == ["y", "x", "z"]
    assert list(in_order(value, schema, schema)["y"][0]) == ["b", "a", "c"]
