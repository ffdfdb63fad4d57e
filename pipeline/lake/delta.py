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
from pipeline.lake.columns import additions, conform, described, picked
from pipeline.lake.lake_table import (
    COMMIT,
    ConflictError,
    TableFile,
    delete_quietly,
    write_rolling,
)
from pipeline.lake.parquet import BATCH_ROWS, KEY_ROWS, footer_rows
from pipeline.lake.store_clients import bucket_of
from pipeline.lake.stores import Stores
from pipeline.lake.table_stores import delta_options
from pipeline.store_settings import SCHEMES, is_object

_KNOWN_FEATURES: Final = frozenset(
    {"appendOnly", "changeDataFeed", "invariants", "timestampNtz", "v2Checkpoint"}
    | {"vacuumProtocolCheck"}
)
_APPEND_ONLY: Final = "delta.appendOnly"
_FORBIDDEN = frozenset(" ,;{}()\n\t=")
_VERSIONS_TOLD = 50


class DeltaLakeTable:
    """A Delta table at a folder or URI."""

    may_widen = False

    def __init__(self, uri: str, stores: Stores) -> None:
        self.name = uri
        self.label = f"output.table {uri}"
        self._filesystem, self._root = stores.filesystem(uri)
        local = "://" not in uri
        self._uri = (
            str(Path(uri).expanduser().absolute()) if local else uri.partition("?")[0].rstrip("/")
        )
        self._root = self._uri if local else self._root.rstrip("/")
        self._options: dict[str, str] = {}
        if is_object(uri):
            scheme = uri.partition("://")[0]
            self._options = delta_options(bucket_of(uri, stores.store(uri)))
            if SCHEMES[scheme] == "gs":  # the one name that deltalake has for it
                self._uri = f"gs{self._uri.removeprefix(scheme)}"
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

    def identity(self) -> str | None:
        """See `LakeTable.identity`."""
        return None if self._table is None else f"{self._uri} {self._table.metadata().id}"

    def snapshot(self) -> str | None:
        """See `LakeTable.snapshot`: a version's number."""
        return None if self._table is None else str(self._table.version())

    def told(self) -> Iterator[Mapping[str, Any]]:
        """See `LakeTable.told`: of the newest versions."""
        yield from [] if self._table is None else self._table.history(_VERSIONS_TOLD)

    def files(self) -> list[TableFile]:
        """See `LakeTable.files`."""
        if self._table is None:
            return []
        found = pa.table(self._table.get_add_actions(flatten=True)).to_pylist()
        return [TableFile(one["path"], self._n_rows(one), int(one["size_bytes"])) for one in found]

    def _n_rows(self, action: Mapping[str, Any]) -> int:
        """Return a file's rows: writers need not say how many there are."""
        if (told := action.get("num_records")) is not None:
            return int(told)
        with self._filesystem.open_input_file(self._path(action["path"])) as stream:
            return footer_rows(stream)

    def read(self, file: TableFile, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """See `LakeTable.read`."""
        schema = pa.schema(self._table.schema().to_arrow())
        if columns is not None:
            schema = picked(schema, columns)
        with (
            self._filesystem.open_input_file(self._path(file.path)) as stream,
            pq.ParquetFile(stream) as parquet,
        ):
            there = [name for name in schema.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(KEY_ROWS if columns else BATCH_ROWS, columns=there):
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

        before, now = self._table.version(), int(time.time() * 1000)
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
            if self._landed(before, properties[COMMIT]):
                return str(before + 1)
            if isinstance(error, CommitFailedError):
                raise ConflictError from error
            raise
        return str(before + 1)  # never another one: deltalake was told not to try again

    def _landed(self, before: int, mark: str) -> bool:
        """Return True if a version after the one that was loaded has our mark."""
        self.load()
        n_newer = 0 if self._table is None else self._table.version() - before
        return n_newer > 0 and any(
            entry.get(COMMIT) == mark for entry in self._table.history(n_newer)
        )

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


def _paths(schema: pa.Schema) -> Iterator[str]:
    def inside(field: pa.Field) -> Iterator[str]:
        yield field.name
        for place in range(field.type.num_fields):
            yield from inside(field.type.field(place))

    for field in schema:
        yield from inside(field)
