"""Reading the truth, and finding the documents that it means."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, RunError
from pipeline.evaluation.shape import record_shape
from pipeline.evaluation.truth import NO_GROUP, read_truth
from pipeline.evaluation.uris import row_keys, truth_key

SHAPE = record_shape(
    {
        "type": "object",
        "properties": {
            "total": {"type": "number"},
            "date": {"type": "string", "format": "date"},
            "items": {"type": "array", "items": {"type": "object", "properties": {"qty": {}}}},
        },
    }
)
RECORD = {"total": 0.1, "date": "2024-03-12", "items": []}


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text('\ufeff{"uri":"a.png","record":{"total":0.1000000000000000000001}}\n\n')
    (document,) = read_truth(str(path), SHAPE).documents.values()
    assert document.record() == {"total": Decimal("0.1000000000000000000001")}


def test_csv_and_parquet_hold_the_record_as_json_text(tmp_path: Path) -> None:
    rows = [{"uri": "a.png", "kind": "scan", "record": json.dumps(RECORD)}]
    with (tmp_path / "truth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth.parquet")
    for name in ("truth.csv", "truth.parquet"):
        (document,) = read_truth(str(tmp_path / name), SHAPE, "kind").documents.values()
        assert document.record() == {**RECORD, "total": Decimal("0.1")}
        assert document.group == "scan"


def test_a_document_without_the_column_has_a_group_of_its_own(write_truth: Any) -> None:
    file = write_truth({"uri": "a", "record": {}, "n": 2}, {"uri": "b", "record": {}})
    groups = [one.group for one in read_truth(file, SHAPE, "n").documents.values()]
    assert groups == ["2", NO_GROUP]


def test_keys_that_the_schema_does_not_name_are_counted(write_truth: Any) -> None:
    file = write_truth({"uri": "a", "record": {"totl": 1, "items": [{"n": 1}, {"n": 2}]}})
    assert read_truth(file, SHAPE).unknown == {"totl": 1, "items[].n": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"uri": "a"', "line 2 is not JSON (Expecting ',' delimiter at character 12); mend it"),
        ("[1]", "line 2: is not a JSON object"),
        ('{"record": {}}', 'line 2: has no "uri"'),
        ('{"uri": "a"}', 'line 2: has no "record"'),
        ('{"uri": "a", "record": []}', 'line 2: has no "record"'),
        ('{"uri": "a", "record": {"total": "x"}}', 'total is "x", and the schema says number'),
        ('{"uri": "a", "record": {"date": "12/03/2024"}}', "the schema says date"),
        ('{"uri": "a", "record": {"items": {}}}', "items is {}, and the schema says array"),
        ('{"uri": "a", "record": {"items": [3]}}', "items[0] is 3, and the schema says object"),
        ('{"uri": "./first", "record": {}}', "./first is stated twice"),
        ('{"uri": "a", "record": {"total": NaN}}', "line 2 is not JSON"),
        ('{"uri": "a", "record": {"x": "\\ud800"}}', "cannot be stored"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text('{"uri": "first", "record": {}}\n' + line)
    with pytest.raises(InputError) as caught:
        read_truth(str(path), SHAPE)
    assert message in str(caught.value)
    assert "line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "there is no such file"),
        ("empty.jsonl", b"", "holds no document"),
        ("bytes.jsonl", b"\xff\xfe", "is not text"),
        ("broken.parquet", b"PAR1", "cannot be read"),
        ("other.csv", b"file,record\na,{}\n", 'has no "uri"'),
    ],
)
def test_a_file_that_is_no_truth_says_so(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_truth(str(tmp_path / name), SHAPE)


def test_a_truth_whose_store_is_away_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with pytest.raises(RunError, match=r"cannot be read \(.* does not answer .*; run again later"):
        read_truth("s3://away/truth.jsonl", SHAPE)  # clients are kept, by bucket


def test_an_unknown_group_names_those_there_are(write_truth: Any) -> None:
    with pytest.raises(InputError, match="no 'knd' to group by; there is kind"):
        read_truth(write_truth({"uri": "a", "kind": "x", "record": {}}), SHAPE, "knd")


@pytest.mark.parametrize(
    ("truth", "row"),
    [
        ("/data/docs/a.png", "/data/docs/a.png"),
        ("./docs//a.png", "/data/docs/a.png"),
        ("a.png", "/data/docs/a.png"),
        ("my scan.pdf", "s3://bucket/in/my%20scan.pdf"),
        ("in/my%20scan.pdf", "s3://bucket/in/my%20scan.pdf"),
        ("s3://bucket/in/a.pdf", "s3://bucket/in/a.pdf"),
        ("a.pdf", "s3://bucket/in/a.pdf?region=eu-west-1"),
        ("file:///data/a%20b.png", "/data/a b.png"),
    ],
)
def test_a_document_is_known_by_the_end_of_its_path(truth: str, row: str) -> None:
    assert truth_key(truth) in set(row_keys(row))


@pytest.mark.parametrize(
    ("truth", "row"),
    [
        ("ocs/a.png", "/data/docs/a.png"),
        ("/docs/a.png", "/data/docs/a.png"),
        ("docs", "/data/docs/a.png"),
        ("other/a.png", "/data/docs/a.png"),
    ],
)
def test_half_a_name_or_another_folder_is_another_document(truth: str, row: str) -> None:
    assert truth_key(truth) not in set(row_keys(row))


def test_the_longest_end_comes_first() -> None:
    keys = list(row_keys("/x/docs/a.png"))
    assert keys == ["/x/docs/a.png", "x/docs/a.png", "docs/a.png", "a.png"]
