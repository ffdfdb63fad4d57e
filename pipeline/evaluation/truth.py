"""The truth: what each document really says.

A file of JSON Lines, one document a line (a file that ends in .csv or .parquet has the same as
columns, `record` as JSON text)::

    {"uri": "scans/a.pdf", "kind": "scan", "record": {"total": 14.74, ...}}

`uri` names the document, `record` is what a perfect reader would answer, and every other key may be
grouped by. Numbers are read exactly.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, one_line
from pipeline.evaluation.metrics import fits
from pipeline.evaluation.shape import Leaf, List, Object, RecordShape, Shape, join, unknown_keys
from pipeline.evaluation.uris import truth_key
from pipeline.lake.exact_json import dumps, loads
from pipeline.lake.store_errors import complaint
from pipeline.lake.stores import Stores

NO_GROUP = "(none)"
"""The group of a document that does not state the column grouped by."""

_CSV_CELL = 128 << 20

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TruthDocument:
    """One document. `record_json` is its record as compact JSON, which takes least memory."""

    uri: str
    record_json: str
    group: str = ""

    def record(self) -> dict[str, Any]:
        """Return the record, with numbers as int or Decimal."""
        record: dict[str, Any] = loads(self.record_json)
        return record


@dataclass(frozen=True, slots=True)
class Truth:
    """All documents, by `truth_key` of their URI, in the file's order.

    `unknown` counts the keys of records that the schema does not name, by path.
    """

    documents: Mapping[str, TruthDocument]
    unknown: Mapping[str, int]


def read_truth(file: str, shape: RecordShape, by: str | None = None) -> Truth:
    """Read a truth file, local or on a store that pyarrow.fs knows.

    Raises
    ------
    InputError
        If the file cannot be read, a document is stated twice, a record has a value that is not of
        the schema's type, or no document has the column `by`. The message names the line.
    RunError
        If its store is away.
    """
    documents: dict[str, TruthDocument] = {}
    unknown: Counter[str] = Counter()
    columns: dict[str, None] = {}
    for where, row in _rows(file, by):
        columns.update(dict.fromkeys(row))
        record = _record(row, where)
        complaint = misfit(shape.root, record)
        if complaint:
            raise InputError(f"{where}: {complaint}; mend it")
        document = _document(row, record, by, where)
        if documents.setdefault(truth_key(document.uri), document) is not document:
            raise InputError(f"{where}: {document.uri} is stated twice; remove one")
        unknown.update(unknown_keys(shape.root, record))
    if not documents:
        raise InputError(f"truth {file}: holds no document; write one JSON object a line")
    if by is not None and by not in columns:
        raise _no_column(file, by, columns)
    return Truth(documents, unknown)


def misfit(shape: Shape, value: Any, place: str = "") -> str | None:
    """Return what of a record is not of the schema's type, in words; None if all is.

    Null is of every type, and so is a key left out. Limits such as maxLength are not looked at.
    """
    if value is None:
        return None
    match shape:
        case Leaf(kind):
            return None if fits(kind, value) else _complaint(place, value, kind)
        case Object(fields):
            if not isinstance(value, dict):
                return _complaint(place, value, "object")
            for name, child in fields.items():
                if complaint := misfit(child, value.get(name), join(place, name)):
                    return complaint
        case List(item):
            if not isinstance(value, list):
                return _complaint(place, value, "array")
            for i, one in enumerate(value):
                if complaint := misfit(item, one, f"{place}[{i}]"):
                    return complaint
    return None


def _complaint(place: str, value: Any, wanted: str) -> str:
    return f"{place or 'record'} is {_shown(value)}, and the schema says {wanted}"


def _shown(value: Any) -> str:
    text = dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _document(row: Row, record: Row, by: str | None, where: str) -> TruthDocument:
    value = None if by is None else row.get(by)
    if value is not None and not isinstance(value, str):
        value = dumps(value) if isinstance(value, (dict, list, bool)) else str(value)
    uri = _uri(row, where)
    try:
        text = dumps(record)
        (text + uri + (value or "")).encode()
    except (RecursionError, UnicodeEncodeError) as error:
        raise InputError(f"{where}: cannot be stored ({one_line(error)}); mend it") from None
    return TruthDocument(uri, text, value or NO_GROUP)


def _uri(row: Row, where: str) -> str:
    uri = row.get("uri")
    if not isinstance(uri, str) or not uri:
        raise InputError(f'{where}: has no "uri"; name the document')
    return uri


def _record(row: Row, where: str) -> dict[str, Any]:
    record = row["record"] if "record" in row else row.get("record_json")
    if isinstance(record, str):
        record = _parsed(record, f"{where}: record")
    if not isinstance(record, dict):
        raise InputError(f'{where}: has no "record" that is a JSON object; write what is true')
    return record


def _parsed(text: str, where: str) -> Any:
    try:
        return loads(text)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at character {error.pos + 1}"  # the line's, not the decoder's lines
        raise InputError(f"{where} is not JSON ({problem}); mend it") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({one_line(error)}); mend it") from None


def _rows(file: str, by: str | None) -> Iterator[tuple[str, Row]]:
    """Yield every row with what to call it in an error."""
    suffix = file.rpartition(".")[2].lower()
    reader = {"csv": _csv_rows, "parquet": _parquet_rows, "pq": _parquet_rows}.get(suffix)
    try:
        store, path = Stores().filesystem(file)
        with store.open_input_file(path) as stream:
            yield from _json_rows(stream, file) if reader is None else reader(stream, file, by)
    except FileNotFoundError as error:
        raise InputError(f"truth {file}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"truth {file}: is not text; give JSON lines, a .csv or a .parquet file"
        ) from error
    except (OSError, ValueError, NotImplementedError, csv.Error) as error:
        said = f"truth {file}: cannot be read ({one_line(error)})"
        raise complaint(InputError, said, error) from error


def _json_rows(stream: Any, file: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_text(stream), 1):
        if not line.strip():
            continue
        where = f"truth {file}: line {number}"
        row = _parsed(line, where)
        if not isinstance(row, dict):
            raise InputError(f"{where}: is not a JSON object; write one a line")
        yield where, row


def _csv_rows(stream: Any, file: str, by: str | None) -> Iterator[tuple[str, Row]]:
    del by
    csv.field_size_limit(_CSV_CELL)
    reader = csv.DictReader(_text(stream), strict=True)
    for row in reader:
        known = {name: cell for name, cell in row.items() if name and isinstance(cell, str)}
        yield f"truth {file}: line {reader.line_num}", known


def _parquet_rows(stream: Any, file: str, by: str | None) -> Iterator[tuple[str, Row]]:
    table = pq.ParquetFile(stream)
    schema = table.schema_arrow
    is_text = "record" in schema.names and _holds_text(schema.field("record").type)
    record = "record" if is_text else "record_json"  # a table of pagelake's own has both
    missing = {"uri", record}.difference(schema.names)
    if missing:
        raise InputError(f"truth {file}: needs text columns uri and record (as JSON)")
    names = {"uri": "uri", record: "record"}
    if by is not None:
        if by not in schema.names:
            raise _no_column(file, by, schema.names)
        names[by] = by
    number = 0
    for batch in table.iter_batches(4096, columns=list(names)):
        for row in batch.to_pylist():
            number += 1
            yield f"truth {file}: row {number}", {names[key]: row[key] for key in names}


def _no_column(file: str, by: str, columns: Iterable[str]) -> InputError:
    others = ", ".join(name for name in columns if name not in ("uri", "record", "record_json"))
    return InputError(f"truth {file}: has no {by!r} to group by; there is {others or 'none'}")


def _holds_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _text(stream: Any) -> TextIOWrapper:
    return TextIOWrapper(cast(BinaryIO, stream), "utf-8-sig", newline="")
