"""Delta Lake: data files beside a log, whose numbered entries are put once and never replaced."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.lake.columns import additions, conform, described
from pipeline.lake.lake_table import (
    COMMIT,
    ConflictError,
    TableFile,
    delete_quietly,
    write_rolling,
)
from pipeline.lake.parquet import KEY_ROWS
from pipeline.lake.stores import Stores
from pipeline.lake.upsert import footer_rows
from pipeline.store_settings import Store

_KNOWN_FEATURES: Final = frozenset(
    {"appendOnly", "changeDataFeed", "invariants", "timestampNtz", "v2Checkpoint"}
    | {"vacuumProtocolCheck"}
)
_APPEND_ONLY: Final = "delta.appendOnly"
_FORBIDDEN = frozenset(" ,;{}()\n\t=")
_BATCH_ROWS = 4096
_LOOK_BACK = 50


class DeltaLakeTable:
    """A Delta table at a folder or URI."""

    may_widen = False

    def __init__(self, uri: str, stores: Stores) -> None:
        self.name = uri
        self.label = f"output.table {uri}"
        self._filesystem, self._root = stores.filesystem(uri)
        local = "://" not in uri
        self._uri = str(Path(uri).expanduser().absolute()) if local else uri.rstrip("/")
        self._root = self._uri if local else self._root.rstrip("/")
        self._options = storage_options(uri, stores.store(uri))
        self._table: Any = None

    def load(self) -> pa.Schema | None:
        """See `LakeTable.load`."""
        from deltalake import DeltaTable

        self._table = None
        if not DeltaTable.is_deltatable(self._uri, storage_options=self._options):
            return None
        self._table = DeltaTable(self._uri, storage_options=self._options)
        self._refuse_kind()
        return pa.schema(self._table.schema().to_arrow())

    def _refuse_kind(self) -> None:
        protocol, metadata = self._table.protocol(), self._table.metadata()
        found = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
        odd = sorted(found - _KNOWN_FEATURES)
        if protocol.min_reader_version == 2:
            odd.append("columnMapping")
        for key, value in metadata.configuration.items():
            if key.startswith("delta.constraints.") or (key, value) == (_APPEND_ONLY, "true"):
                odd.append(key)
        if metadata.partition_columns:
            odd.append(f"partitions by {', '.join(metadata.partition_columns)}")
        if odd:
            raise OutputError(
                f"{self.label}: the table uses {', '.join(odd)}, which pagelake does not write; "
                "choose another output.table"
            )

    def refuse(self, documents: pa.Schema) -> None:
        """See `LakeTable.refuse`: Delta Lake knows no names with blanks and some other signs."""
        for path in _paths(documents):
            if _FORBIDDEN.intersection(path):
                raise OutputError(
                    f"{self.label}: Delta Lake takes no name like {path!r}; rename it in the "
                    "schema, or use output.format iceberg"
                )

    def snapshot(self) -> str | None:
        """See `LakeTable.snapshot`: a version's number."""
        return None if self._table is None else str(self._table.version())

    def told(self) -> Iterator[Mapping[str, Any]]:
        """See `LakeTable.told`."""
        yield from [] if self._table is None else self._table.history(_LOOK_BACK)

    def files(self) -> list[TableFile]:
        """See `LakeTable.files`."""
        return [] if self._table is None else _files(self._table)

    def read(self, file: TableFile, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """See `LakeTable.read`."""
        schema = pa.schema(self._table.schema().to_arrow())
        if columns is not None:
            schema = pa.schema([_named(schema, name) for name in columns])
        with (
            self._filesystem.open_input_file(self._path(file.path)) as stream,
            pq.ParquetFile(stream) as parquet,
        ):
            there = [name for name in schema.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(KEY_ROWS if columns else _BATCH_ROWS, columns=there):
                yield conform(batch, schema)

    def prepare(self, documents: pa.Schema) -> None:
        """See `LakeTable.prepare`. New columns come in a commit of their own before the rows'."""
        from deltalake import DeltaTable, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError
        from deltalake.transaction import CommitProperties

        columns = described(documents, "comment")
        try:
            if self._table is None:
                self._table = DeltaTable.create(
                    self._uri, schema=columns, storage_options=self._options
                )
            elif additions(pa.schema(self._table.schema().to_arrow()), columns):
                write_deltalake(
                    self._table,
                    columns.empty_table(),
                    mode="append",
                    schema_mode="merge",
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
                self._table.update_incremental()
        except CommitFailedError as error:
            raise ConflictError from error
        except DeltaError as error:
            if DeltaTable.is_deltatable(self._uri, storage_options=self._options):
                raise ConflictError from error  # somebody else has made it just now
            raise

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[TableFile]:
        """See `LakeTable.write`."""
        schema = pa.schema(self._table.schema().to_arrow())

        def create() -> tuple[str, Any]:
            name = f"part-{uuid.uuid4()}.parquet"
            return name, self._filesystem.open_output_stream(self._path(name))

        rows = (conform(batch, schema) for batch in batches)
        return [self._staged(path) for path in write_rolling(create, schema, rows)]

    def _staged(self, name: str) -> TableFile:
        path = self._path(name)
        with self._filesystem.open_input_file(path) as stream:
            return TableFile(name, footer_rows(stream), stream.size())

    def commit(
        self,
        added: Sequence[TableFile],
        removed: Sequence[TableFile],
        properties: Mapping[str, str],
    ) -> str:
        """See `LakeTable.commit`."""
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, CommitProperties, RemoveAction

        now = int(time.time() * 1000)
        actions: list[Any] = [
            RemoveAction(file.path, True, now, file.n_bytes, {}) for file in removed
        ]
        for file in added:
            stats = json.dumps({"numRecords": file.n_rows})
            actions.append(AddAction(file.path, file.n_bytes, {}, now, True, stats))
        try:
            self._table.create_write_transaction(
                actions,
                "append",
                self._table.schema(),
                commit_properties=CommitProperties(dict(properties), max_commit_retries=0),
            )
        except Exception as error:
            landed = self._landed(properties[COMMIT])
            if landed is None and isinstance(error, CommitFailedError):
                raise ConflictError from error
            if landed is None:
                raise
            return landed
        landed = self._landed(properties[COMMIT])
        if landed is None:
            raise ConflictError  # others have committed more than we look back
        return landed

    def _landed(self, mark: str) -> str | None:
        """Return the version that has our mark, None if there is none of late."""
        self.load()
        for entry in self._table.history(_LOOK_BACK):
            if entry.get(COMMIT) == mark:
                return str(entry["version"])
        return None

    def rows(self, snapshot: str) -> int:
        """See `LakeTable.rows`."""
        self._table.load_as_version(int(snapshot))
        return sum(file.n_rows for file in self.files())

    def discard(self, files: Iterable[TableFile]) -> None:
        """See `LakeTable.discard`."""
        delete_quietly(lambda path: self._filesystem.delete_file(self._path(path)), files)

    def close(self) -> None:
        """See `LakeTable.close`."""
        self._table = None

    def _path(self, name: str) -> str:
        return f"{self._root}/{unquote(name)}"


def storage_options(uri: str, store: Store) -> dict[str, str]:
    """Translate a store's settings; keys and secrets are left to the environment."""
    options = {"timeout": f"{store.timeout_s:g}s"}
    if uri.startswith(("s3://", "s3a://")):
        options |= {
            key: value
            for key, value in {
                "aws_endpoint_url": store.endpoint,
                "aws_region": store.region,
                "aws_profile": store.profile,
                "aws_skip_signature": "true" if store.anonymous else None,
            }.items()
            if value
        }
    elif store.account:
        options["azure_storage_account_name"] = store.account
    if store.endpoint and store.endpoint.startswith("http://"):
        options["allow_http"] = "true"
    return options


def _files(table: Any) -> list[TableFile]:
    found = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return [
        TableFile(one["path"], int(one["num_records"]), int(one["size_bytes"])) for one in found
    ]


def _named(schema: pa.Schema, name: str) -> pa.Field:
    return schema.field(name) if name in schema.names else pa.field(name, pa.string())


def _paths(schema: pa.Schema) -> Iterator[str]:
    def inside(field: pa.Field) -> Iterator[str]:
        yield field.name
        for place in range(field.type.num_fields):
            yield from inside(field.type.field(place))

    for field in schema:
        yield from inside(field)
