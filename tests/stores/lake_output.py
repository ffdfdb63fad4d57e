"""An output whose documents go into a table, for tests of either format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import lake_tables as proof
import pyarrow as pa
from lake_piles import RECORD

from pipeline.lake.delta import DeltaLakeTable
from pipeline.lake.iceberg import IcebergTable, embedded_catalog
from pipeline.lake.lake_table import LakeTable
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import write_tables
from pipeline.lake.stores import Stores
from pipeline.lake.tables import documents_schema, with_digests
from pipeline.lake.upsert import Documents, Upserted, load_checked, upsert

Rows = list[dict[str, Any]]
OPEN: dict[str, Callable[[Path], LakeTable]] = {
    "iceberg": lambda folder: IcebergTable(embedded_catalog(folder / "iceberg"), "lake.docs"),
    "delta": lambda folder: DeltaLakeTable(str(folder / "delta"), Stores()),
}


@dataclass(frozen=True)
class Lake:
    """A table, and an output whose documents go into it."""

    folder: Path
    format: str

    @property
    def layout(self) -> Layout:
        return Layout.open(str(self.folder / "out"))

    def upsert(self, documents: Documents, **properties: str) -> Upserted:
        table = OPEN[self.format](self.folder)
        try:
            return upsert(table, documents, lambda _: properties)
        finally:
            table.close()

    def documents(self, name: str, rows: Rows, record: pa.DataType = RECORD) -> Documents:
        """Write rows as an output's documents; uri and record are what they name."""
        schema = documents_schema(record)
        table = with_digests(pa.Table.from_pylist(rows, schema=schema))
        files = write_tables(self.layout, f"documents/{name}", schema, [table])
        return Documents.of(self.layout, files, schema)

    def rows(self) -> Rows:
        """Read the table as a stranger would: by what the format's own library lists."""
        files = proof.data_files(self.format, self.folder)
        found = duckdb.read_parquet(files, union_by_name=True).to_arrow_table()
        rows: Rows = found.to_pylist(maps_as_pydicts="strict")
        return sorted(rows, key=lambda row: (row["uri"], row["schema_id"]))

    def digests(self) -> dict[str, str]:
        return {row["uri"]: row["row_digest"] for row in self.rows()}

    def check(self, documents: pa.Schema) -> None:
        table = OPEN[self.format](self.folder)
        try:
            load_checked(table, documents)
        finally:
            table.close()


def row(uri: str, record: Any = None, schema_id: str = "s.v1", **more: Any) -> dict[str, Any]:
    return {"uri": uri, "schema_id": schema_id, "record": record, **more}


def counts(done: Upserted) -> tuple[int, int, int, int]:
    return done.inserted, done.replaced, done.unchanged, done.rows
