"""Apache Iceberg: data files in manifests, and a catalog that knows the newest of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from pipeline.errors import OutputError
from pipeline.lake.columns import additions, conform, described, field_id, picked
from pipeline.lake.lake_table import (
    COMMIT,
    ConflictError,
    TableFile,
    delete_quietly,
    write_rolling,
)
from pipeline.lake.parquet import BATCH_ROWS, KEY_ROWS
from pipeline.lake.store_clients import bucket_of
from pipeline.lake.stores import Stores
from pipeline.lake.table_stores import iceberg_properties, s3_properties
from pipeline.store_settings import is_object

_EMBEDDED: Final = "pagelake"


class IcebergTable:
    """An Iceberg table of a catalog, unpartitioned, of format version 2."""

    may_widen = True

    def __init__(self, catalog: Any, name: str) -> None:
        self.label = f"output.table {name}"
        self._catalog = catalog
        self.name = name
        self._table: Any = None
        self._transaction: Any = None

    def load(self) -> pa.Schema | None:
        """See `LakeTable.load`."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        self._table = self._transaction = None
        try:
            self._table = self._catalog.load_table(self.name)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None
        if not self._table.spec().is_unpartitioned():
            raise OutputError(
                f"{self.label}: the table is partitioned, which pagelake does not write; choose "
                "another output.table"
            )
        return self._columns(self._table.schema())

    def refuse(self, documents: pa.Schema) -> None:
        """See `LakeTable.refuse`: Iceberg takes any name."""

    def identity(self) -> str | None:
        """See `LakeTable.identity`."""
        return None if self._table is None else f"{self.name} {self._table.metadata.table_uuid}"

    def snapshot(self) -> str | None:
        """See `LakeTable.snapshot`."""
        found = None if self._table is None else self._table.current_snapshot()
        return None if found is None else str(found.snapshot_id)

    def told(self) -> Iterator[Mapping[str, Any]]:
        """See `LakeTable.told`."""
        for found in reversed([] if self._table is None else self._table.snapshots()):
            if found.summary is not None:
                yield found.summary.additional_properties

    def files(self) -> list[TableFile]:
        """See `LakeTable.files`."""
        return [] if self._table is None else self._files(None)

    def _files(self, snapshot: int | None) -> list[TableFile]:
        files = []
        for task in self._table.scan(snapshot_id=snapshot).plan_files():
            if task.delete_files or str(task.file.file_format).upper().endswith(("AVRO", "ORC")):
                raise OutputError(
                    f"{self.label}: it has row-level deletes or files that are not Parquet; "
                    "rewrite its data files first, or choose another output.table"
                )
            file = task.file
            files.append(
                TableFile(file.file_path, file.record_count, file.file_size_in_bytes, file)
            )
        return files

    def read(self, file: TableFile, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """See `LakeTable.read`. Columns are found by their ids: they may have had other names."""
        schema = self._columns(self._schema())
        if columns is not None:
            schema = picked(schema, columns)
        with (
            self._table.io.new_input(file.path).open(seekable=True) as stream,
            pq.ParquetFile(stream) as parquet,
        ):
            there = parquet.schema_arrow
            wanted = {*map(field_id, schema), *schema.names}
            names = [one.name for one in there if {field_id(one), one.name} & (wanted - {None})]
            for batch in parquet.iter_batches(KEY_ROWS if columns else BATCH_ROWS, columns=names):
                yield conform(batch, schema)

    def prepare(self, documents: pa.Schema) -> None:
        """See `LakeTable.prepare`. New columns are committed together with the rows."""
        from pyiceberg.exceptions import TableAlreadyExistsError

        columns = described(documents, "doc")
        if self._table is None:
            namespace, _, _ = self.name.rpartition(".")
            try:
                self._catalog.create_namespace_if_not_exists(namespace)
                self._table = self._catalog.create_table(self.name, schema=columns)
            except TableAlreadyExistsError as error:
                raise ConflictError from error
        self._transaction = self._table.transaction()
        if additions(self._columns(self._table.schema()), columns):
            with self._transaction.update_schema() as update:
                update.union_by_name(columns)

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[TableFile]:
        """See `LakeTable.write`."""
        from pyiceberg.io.pyarrow import parquet_file_to_data_file

        metadata, io = self._transaction.table_metadata, self._table.io
        schema = self._columns(metadata.schema())

        def create() -> tuple[str, Any]:
            path = self._table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
            return path, io.new_output(path).create()

        files = []
        for path in write_rolling(create, schema, (conform(batch, schema) for batch in batches)):
            # Reads the footer again: its rows are counted from what was stored.
            file = parquet_file_to_data_file(io, metadata, path)
            files.append(TableFile(path, file.record_count, file.file_size_in_bytes, file))
        return files

    def commit(
        self,
        added: Sequence[TableFile],
        removed: Sequence[TableFile],
        properties: Mapping[str, str],
    ) -> str:
        """See `LakeTable.commit`."""
        from pyiceberg.exceptions import CommitFailedException

        _stage(self._transaction, added, removed, dict(properties))
        try:
            self._transaction.commit_transaction()
        except Exception as error:
            landed = self._landed(properties[COMMIT])
            if landed is None and isinstance(error, CommitFailedException):
                raise ConflictError from error
            if landed is None:
                raise
            return landed
        return str(self._table.current_snapshot().snapshot_id)

    def _landed(self, mark: str) -> str | None:
        """Return the snapshot that has our mark, None if there is none."""
        self.load()
        for found in reversed([] if self._table is None else self._table.snapshots()):
            if found.summary is not None and found.summary.get(COMMIT) == mark:
                return str(found.snapshot_id)
        return None

    def rows(self, snapshot: str) -> int:
        """See `LakeTable.rows`."""
        return sum(file.n_rows for file in self._files(int(snapshot)))

    def discard(self, files: Iterable[TableFile]) -> None:
        """See `LakeTable.discard`."""
        delete_quietly(self._table.io.delete, files)

    def close(self) -> None:
        """See `LakeTable.close`."""
        self._catalog.close()

    def _schema(self) -> Any:
        source = self._table if self._transaction is None else self._transaction.table_metadata
        return source.schema()

    @staticmethod
    def _columns(schema: Any) -> pa.Schema:
        """Return an Iceberg schema as Arrow's, with the fields' ids."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        fields = schema_to_pyarrow(schema, include_field_ids=True)
        return pa.schema([field.with_type(_plain(field.type)) for field in fields])


def _stage(
    transaction: Any,
    added: Sequence[TableFile],
    removed: Sequence[TableFile],
    properties: dict[str, str],
) -> None:
    """Put the swap into a transaction. All that is private to pyiceberg 0.12 is used here."""
    from pyiceberg.expressions import AlwaysTrue

    update = transaction.update_snapshot(snapshot_properties=properties)
    producer = update.overwrite() if removed else update.fast_append()
    if removed:
        producer.delete_by_predicate(AlwaysTrue())  # look for the files in all manifests
    for file in removed:
        producer.delete_data_file(file.handle)
    for file in added:
        producer.append_data_file(file.handle)
    producer.commit()
    # pyiceberg would lay the same files on top of what others have committed meanwhile; what is new
    # and changed must be found out again then.
    transaction._snapshot_producers.clear()


def embedded_catalog(folder: Path) -> Any:
    """Open the SQLite catalog inside an output's folder, and make it if need be."""
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import URL

    folder.mkdir(parents=True, exist_ok=True)
    uri = URL.create("sqlite", database=str(folder / "catalog.db"))
    return SqlCatalog(
        _EMBEDDED, uri=uri.render_as_string(hide_password=False), warehouse=str(folder)
    )


def named_catalog(name: str, stores: Stores, uri: str) -> Any:
    """Open a catalog of pyiceberg's configuration; what it says of a store goes before the job's.

    The job's settings are those for the catalog's warehouse, or for the output's `uri` if that is
    in a store. If neither says where tables lie, which a catalog itself may tell later, they are
    those for all of S3.

    Raises
    ------
    OutputError
        If there is no such catalog, or the store's settings cannot be handed on to it.
    ValueError
        If the store's settings do not fit together.
    """
    from pyiceberg.catalog import load_catalog
    from pyiceberg.utils.config import Config

    configured = Config().get_catalog_config(name)
    if configured is None:
        raise OutputError(
            f"output.catalog: pyiceberg knows no catalog '{name}'; describe it in ~/.pyiceberg.yaml"
            f" or by PYICEBERG_CATALOG__{name.upper()}__URI and its like"
        )
    return load_catalog(name, **_with_stores(configured, stores, uri))


def _with_stores(configured: Mapping[str, Any], stores: Stores, uri: str) -> Mapping[str, Any]:
    """Complete a catalog's configuration by the job's settings of the store it keeps tables in."""
    warehouse = str(configured.get("warehouse", ""))
    place = warehouse if "://" in warehouse else uri
    if is_object(place):
        return iceberg_properties(bucket_of(place, stores.store(place)), configured)
    if "://" in warehouse or Path(warehouse).is_absolute():
        return configured
    return s3_properties(stores.store("s3://"), configured)


def _plain(type_: pa.DataType) -> pa.DataType:
    """Return a type with 32-bit offsets, as documents have them."""
    if pt.is_struct(type_):
        return pa.struct([field.with_type(_plain(field.type)) for field in type_])
    if pt.is_large_list(type_) or pt.is_list(type_):
        return pa.list_(type_.value_field.with_type(_plain(type_.value_type)))
    if pt.is_map(type_):
        key, item = type_.key_field, type_.item_field
        return pa.map_(key.with_type(_plain(key.type)), item.with_type(_plain(item.type)))
    if pt.is_large_string(type_):
        return pa.string()
    return pa.binary() if pt.is_large_binary(type_) else type_
