"""Rows of `documents` by the thousand: made, not read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa

from pipeline.lake.layout import DOCUMENTS, Layout
from pipeline.lake.parquet import write_tables
from pipeline.lake.tables import DIGEST, documents_schema
from pipeline.lake.upsert import Documents

RECORD = pa.struct(
    [
        ("vendor", pa.string()),
        ("day", pa.date32()),
        ("total", pa.decimal128(12, 2)),
        (
            "lines",
            pa.list_(
                pa.field(
                    "element",
                    pa.struct([("text", pa.string()), ("price", pa.decimal128(12, 2))]),
                )
            ),
        ),
    ]
)
SCHEMA = documents_schema(RECORD)
LINES = 4
_ROWS_AT_ONCE = 20_000

Version = Callable[[int], int]
"""The version of the document with a number: another one is another row with the same key."""


def uri_of(number: int) -> str:
    """Return the uri of a document."""
    return f"s3://archive/receipts/{number:09}.pdf"


def digest_of(number: int, version: int) -> str:
    """Return the digest of a row: 32 hex digits."""
    return hashlib.blake2b(b"%d %d" % (number, version), digest_size=16).hexdigest()


def make_documents(
    layout: Layout, name: str, n_rows: int, version: Version = lambda _: 0
) -> Documents:
    """Write the documents 0 to `n_rows` as files of an output, about 1 kB a row."""
    files = write_tables(layout, f"{DOCUMENTS}/{name}", SCHEMA, _tables(n_rows, version))
    return Documents.of(layout, files, SCHEMA)


def _tables(n_rows: int, version: Version) -> Iterator[pa.Table]:
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        numbers = range(start, min(n_rows, start + _ROWS_AT_ONCE))
        yield _table(numbers, [version(number) for number in numbers])


def _table(numbers: range, versions: list[int]) -> pa.Table:
    size = len(numbers)
    digests = [digest_of(n, v) for n, v in zip(numbers, versions, strict=True)]
    texts = [f"{digest} at the corner of {digest[:7]} and {digest[9:15]}" for digest in digests]
    cents = pa.array(np.arange(size * LINES) % 9999, pa.int64()).cast(pa.decimal128(19, 0))
    prices = cents.cast(pa.decimal128(12, 2))
    lines = pa.StructArray.from_arrays(
        [pa.array(np.repeat(texts, LINES)), prices],
        fields=list(RECORD.field("lines").type.value_type),
    )
    offsets = pa.array(np.arange(0, size * LINES + 1, LINES, dtype=np.int32))
    record = pa.StructArray.from_arrays(
        [
            pa.array(texts),
            pa.array([date(2026, 1, 1)] * size),
            prices.slice(0, size),
            pa.ListArray.from_arrays(offsets, lines, type=RECORD.field("lines").type),
        ],
        fields=list(RECORD),
    )
    ids = [digest + digest for digest in digests]
    columns = {
        "document_id": pa.array(ids),
        "uri": pa.array([uri_of(number) for number in numbers]),
        "n_pages": pa.array([1] * size, pa.int32()),
        "state": pa.array(["ok"] * size),
        "record": record,
        "record_json": pa.array(
            [f'{{"vendor": "{text}", "lines": "{text * 4}"}}' for text in texts]
        ),
        "schema_id": pa.array(["receipt.v1"] * size),
        "run_id": pa.array(["r1"] * size),
        "processed_at": pa.array(
            [datetime(2026, 1, 1, tzinfo=UTC)] * size, SCHEMA.field("processed_at").type
        ),
        "source": pa.array([[("shop", "x")]] * size, SCHEMA.field("source").type),
        DIGEST: pa.array(digests),
    }
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(size, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)
