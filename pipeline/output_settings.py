"""A job's `output`: where the tables go, and in which layout."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.section import Location, Section, listed

_SOURCE_COLUMN = re.compile(r"source\.[A-Za-z0-9_.-]{1,100}")


def _partition_column(name: str) -> str:
    if name not in ("state", "schema_id") and not _SOURCE_COLUMN.fullmatch(name):
        raise ValueError(
            f"{name!r}: write state, schema_id, or source.NAME for the manifest's column NAME, of "
            "letters, digits, _, - and . (at most 100)"
        )
    return name


PartitionColumn = Annotated[str, AfterValidator(_partition_column)]


class Output(Section):
    """Where the tables go."""

    uri: Location = Field(min_length=1, description="Folder or URI of the tables.")
    format: Literal["parquet", "iceberg", "delta"] = Field(
        default="parquet",
        description="Parquet files in the output; or also a table of Iceberg or Delta Lake, into "
        "which each run brings its documents in one snapshot.",
    )
    table: Location | None = Field(
        default=None,
        min_length=1,
        description="The table's name in the catalog, such as lake.receipts (iceberg), or its URI "
        "(delta).",
    )
    catalog: str | None = Field(
        default=None,
        min_length=1,
        description="An Iceberg catalog by its name in pyiceberg's own configuration; a SQLite "
        "catalog inside the output if null.",
    )
    partition_by: Annotated[tuple[PartitionColumn, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Columns whose values are folders of documents/, such as state=ok: state, "
        "schema_id, and source.NAME for the manifest's column NAME.",
    )

    @property
    def in_store(self) -> bool:
        """Whether the tables go elsewhere than to a disk."""
        return "://" in self.uri and not self.uri.startswith("file://")

    @model_validator(mode="after")
    def _partitions_are_of_parquet(self) -> Self:
        if self.partition_by and self.format != "parquet":
            raise ValueError(
                f"partition_by: format {self.format} has a layout of its own; remove it, or set "
                "format: parquet"
            )
        if len({column.lower() for column in self.partition_by}) < len(self.partition_by):
            raise ValueError("partition_by: a column is named twice; name it once")
        return self

    @model_validator(mode="after")
    def _table_has_its_format(self) -> Self:
        if self.format == "parquet" and self.table is not None:
            raise ValueError("table: format parquet has none; set format: iceberg or delta")
        if self.format != "iceberg" and self.catalog is not None:
            raise ValueError(f"catalog: format {self.format} has none; set format: iceberg")
        if self.table is not None:
            _check_table(self.format, self.table)
        if self.format == "iceberg" and self.catalog is None and self.in_store:
            raise ValueError(
                "catalog is missing; the SQLite catalog needs an output on a disk: name a catalog "
                "of pyiceberg's configuration, or take format: delta"
            )
        return self


def _check_table(format: str, table: str) -> None:
    if format == "delta" and "/" not in table:
        raise ValueError(f"table: '{table}' is no folder or URI; write ./{table} if you mean one")
    if format == "iceberg" and not re.fullmatch(r"[\w-]+(\.[\w-]+)*", table):
        raise ValueError(
            f"table: '{table}' is no table's name: letters, digits, _ and - between dots: lake.a"
        )
    if format == "iceberg" and "." not in table:
        raise ValueError(f"table: '{table}' has no namespace; write lake.{table}")
