"""Rows of training data: which pages, what is asked of them, and what is right.

JSON Lines or Parquet, one sample a row::

    {"uri": "scans/a.pdf", "pages": "1-3", "question": "...", "answer": {"total": 14.74}}
    {"uri": "scans/b.pdf", "turns": [{"question": "...", "answer": "..."}, ...]}

`answer` may be called `record` or `record_json`, as truths and tables call it. A folder is the
output of a run that a person has corrected: its documents whose state is ok.
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from io import TextIOWrapper
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.errors import InputError, ItemError, one_line
from pipeline.lake.exact_json import dumps, loads
from pipeline.lake.store_errors import complaint
from pipeline.lake.stores import Stores
from pipeline.lake.values import converter

_ANSWERS = ("answer", "record_json", "record")
_OK = "ok"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, None for the job's own, and its answer: a JSON object, or text.

    A `typed` answer comes from typed columns, which hold null for what the object leaves out.
    """

    question: str | None
    answer: Mapping[str, Any] | str
    typed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A sample: pages of a document (all if None), and what is said about them.

    `where` is what to call the row in an error.
    """

    where: str
    uri: str
    pages: str | None
    exchanges: tuple[Exchange, ...]

    @property
    def content(self) -> str:
        """All that the row teaches, as text: equal for equal rows."""
        said = [[one.question, one.answer] for one in self.exchanges]
        return dumps([self.uri, self.pages, said])


def read_rows(location: str) -> list[Row]:
    """Read a file of rows or a corrected output, local or on a store that pyarrow.fs knows.

    Raises
    ------
    InputError
        If it cannot be read, or a row is not as above. The message names the row.
    RunError
        If its store is away.
    """
    try:
        store, path = Stores().filesystem(location)
        if store.get_file_info(path).type == fs.FileType.Directory:
            rows = list(_output(store, path, location))
        else:
            # Beside the data file; nothing is beside what has no folder.
            folder = posixpath.dirname(location)
            found = _parquet_rows if path.endswith((".parquet", ".pq")) else _json_rows
            with store.open_input_file(path) as stream:
                rows = [_row(where, row, folder) for where, row in found(stream, location)]
    except FileNotFoundError as error:
        raise InputError(f"data {location}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"data {location}: is not text; give JSON lines or Parquet") from error
    except (OSError, ValueError, NotImplementedError) as error:
        said = f"data {location}: cannot be read ({one_line(error)})"
        raise complaint(InputError, said, error) from error
    if not rows:
        raise InputError(f"data {location}: holds no rows; write one JSON object a line")
    return rows


def split(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Divide rows into those to learn and those to measure with, whole documents at a time.

    The same rows in the same order are divided the same way on every machine.
    """
    uris = list(dict.fromkeys(row.uri for row in rows))
    count = min(len(uris) - 1, max(1, round(share * len(uris)))) if share else 0
    kept = set(random.Random(seed).sample(uris, count))
    return [r for r in rows if r.uri not in kept], [r for r in rows if r.uri in kept]


def _row(where: str, row: Mapping[str, Any], folder: str) -> Row:
    uri = row.get("uri")
    if not isinstance(uri, str) or not uri:
        raise InputError(f'{where}: has no "uri"; name the document')
    if "://" not in uri and not uri.startswith("/") and folder:
        uri = f"{folder}/{uri}" if "://" in folder else posixpath.normpath(f"{folder}/{uri}")
    return Row(where, uri, _pages(where, row.get("pages")), _exchanges(where, row))


def _pages(where: str, pages: Any) -> str | None:
    if isinstance(pages, str | None):
        return pages
    numbers = pages if isinstance(pages, list) else [pages]
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise InputError(f'{where}: pages: write a list of numbers, or text such as "1-3,7"')
    return ",".join(map(str, numbers))


def _exchanges(where: str, row: Mapping[str, Any]) -> tuple[Exchange, ...]:
    turns = row.get("turns")
    if turns is None:
        return (_exchange(where, row),)
    if any(row.get(name) is not None for name in ("question", *_ANSWERS)):
        raise InputError(f"{where}: has turns, and an answer beside them; put it into a turn")
    if isinstance(turns, str):
        turns = _parsed(turns, f"{where}: turns")
    if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) for t in turns):
        raise InputError(f"{where}: turns: write a list of objects with question and answer")
    found = tuple(_exchange(f"{where}: turns[{i}]", turn) for i, turn in enumerate(turns))
    for i, one in enumerate(found):
        if i and one.question is None:
            raise InputError(f"{where}: turns[{i}]: has no question; only the first may go without")
    return found


def _exchange(where: str, row: Mapping[str, Any]) -> Exchange:
    question = row.get("question")
    if not isinstance(question, str | None) or question == "":
        raise InputError(f"{where}: question: write it as text")
    answer = next((row[name] for name in _ANSWERS if row.get(name) is not None), None)
    if answer is None:
        raise InputError(f'{where}: has no "answer"; write what is right')
    if not isinstance(answer, str | dict):
        raise InputError(f"{where}: answer: write a JSON object, or text")
    return Exchange(question, answer, bool(row.get("typed")) and isinstance(answer, dict))


def _json_rows(stream: Any, file: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_text(stream), 1):
        if line.strip():
            where = f"data {file}: line {number}"
            row = _parsed(line, where)
            if not isinstance(row, dict):
                raise InputError(f"{where}: is not a JSON object; write one a line")
            yield where, row


def _parsed(text: str, where: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        raise InputError(f"{where}: is not JSON ({one_line(error)}); mend it") from None


def _parquet_rows(stream: Any, file: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    table = pq.ParquetFile(stream)
    schema = table.schema_arrow
    if "uri" not in schema.names or not {*_ANSWERS, "turns"}.intersection(schema.names):
        raise InputError(f"data {file}: needs the columns uri, and answer or turns")
    number = 0
    for batch in table.iter_batches(1024):
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            number += 1
            where = f"data {file}: row {number}"
            yield where, {**_settled(where, row, schema), "typed": True}


def _settled(where: str, row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Return a row's values as JSON has them.

    A table of a run has each record twice, typed and as text, and people correct one of them.
    """
    typed, text = row.get("record"), row.get("record_json")
    if isinstance(typed, dict) and text is not None:
        try:
            same = converter(schema.field("record").type)(_parsed(text, where)) == typed
        except (ItemError, KeyError):  # KeyError: of a type that is none of our tables'
            same = False
        if not same:
            raise InputError(
                f"{where}: its record and its record_json differ; set the one that is wrong to null"
            )
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Return what a typed column holds as JSON values."""
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case float():
            return Decimal(repr(value))
        case _:
            return value


def _output(store: fs.FileSystem, path: str, location: str) -> Iterator[Row]:
    """Yield the rows of a corrected output; other states than ok are left out."""
    found = store.get_file_info(
        fs.FileSelector(f"{path}/documents", allow_not_found=True, recursive=True)
    )
    files = sorted(info.path for info in found if info.path.endswith(".parquet"))
    if not files:
        raise InputError(f"data {location}: is a folder without documents/*.parquet; name a file")
    for file in files:
        with store.open_input_file(file) as stream:
            for where, row in _parquet_rows(stream, file):
                if row.get("state") == _OK:
                    yield _row(where, row, location)


def _text(stream: Any) -> TextIOWrapper:
    return TextIOWrapper(cast(BinaryIO, stream), "utf-8-sig", newline="")
