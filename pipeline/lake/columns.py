"""How the columns of documents fit those of a table that is there: what differs, and by how much.

Columns go by their names, at every depth. What the table has and the documents do not is null in
their rows; what it lacks is added to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

FIELD_ID = b"PARQUET:field_id"
"""The key in a field's metadata of its id in a Parquet file."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field whose type in the table cannot hold the documents' values, nor become one that can.

    `path` is `record.total`; the items of lists have no step of their own.
    """

    path: str
    in_table: str
    in_documents: str


def widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Return True if a type is stored in a wider one: the promotions that Iceberg knows."""
    if pt.is_int32(narrow):
        return bool(pt.is_int64(wide))
    if pt.is_float32(narrow):
        return bool(pt.is_float64(wide))
    if pt.is_decimal(narrow) and pt.is_decimal(wide):
        return bool(narrow.scale == wide.scale and narrow.precision <= wide.precision)
    return False


def misfits(table: pa.Schema, documents: pa.Schema, *, may_widen: bool) -> Iterator[Misfit]:
    """Find the fields of a table that cannot take the documents' rows.

    `may_widen` says that the type of a table's column may become a wider one.
    """
    return _fields(list(table), list(documents), "", may_widen)


def additions(table: pa.Schema, documents: pa.Schema) -> bool:
    """Return True if the table lacks a field of the documents, or has a narrower type for one."""
    return _adds(pa.struct(list(table)), pa.struct(list(documents)))


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give rows the columns of a table: fields that they lack are null.

    Fields go by their ids in a file where both have one, as Iceberg's do, and else by their names.
    """
    columns = _children(list(batch.schema), list(schema), batch.columns, batch.num_rows)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def picked(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """Return some columns of a table, of text if it has none of that name."""
    return pa.schema(
        [schema.field(name) if name in schema.names else (name, pa.string()) for name in names]
    )


def described(schema: pa.Schema, key: str) -> pa.Schema:
    """Return a schema with the descriptions of its columns under a format's own name for them."""
    return pa.schema(
        [
            field.with_metadata({key: field.metadata[b"description"]})
            if b"description" in (field.metadata or {})
            else field
            for field in schema
        ]
    )


def _fields(
    table: list[pa.Field], documents: list[pa.Field], inside: str, may_widen: bool
) -> Iterator[Misfit]:
    there = {field.name: field for field in table}
    for field in documents:
        if field.name in there:
            yield from _types(there[field.name].type, field.type, inside + field.name, may_widen)
    for name in there.keys() - {field.name for field in documents}:
        if not there[name].nullable:
            yield Misfit(inside + name, f"{type_name(there[name].type)} and required", "missing")


def _types(
    table: pa.DataType, documents: pa.DataType, path: str, may_widen: bool
) -> Iterator[Misfit]:
    if pt.is_struct(table) and pt.is_struct(documents):
        yield from _fields(list(table), list(documents), f"{path}.", may_widen)
    elif pt.is_list(table) and pt.is_list(documents):
        yield from _types(table.value_type, documents.value_type, path, may_widen)
    elif pt.is_map(table) and pt.is_map(documents):
        yield from _types(table.item_type, documents.item_type, path, may_widen)
    elif table != documents and not (
        widens(documents, table) or (may_widen and widens(table, documents))
    ):
        yield Misfit(path, type_name(table), type_name(documents))


def _adds(table: pa.DataType, documents: pa.DataType) -> bool:
    if pt.is_struct(table) and pt.is_struct(documents):
        there = {field.name: field.type for field in table}
        return any(
            field.name not in there or _adds(there[field.name], field.type) for field in documents
        )
    if pt.is_list(table) and pt.is_list(documents):
        return _adds(table.value_type, documents.value_type)
    return widens(table, documents) and table != documents


def type_name(type_: pa.DataType) -> str:
    """Name a type as people do: decimal(12, 2), string, list, record."""
    if pt.is_decimal(type_):
        return f"decimal({type_.precision}, {type_.scale})"
    if pt.is_struct(type_):
        return "a record"
    if pt.is_list(type_):
        return "a list"
    return str(type_)


def _children(
    there: list[pa.Field], wanted: list[pa.Field], arrays: list[Any], n_rows: int
) -> list[Any]:
    places = {field_id(field) or field.name: place for place, field in enumerate(there)}
    names = {field.name: place for place, field in enumerate(there) if field_id(field) is None}
    found = [places.get(field_id(one), names.get(one.name)) for one in wanted]
    return [
        pa.nulls(n_rows, one.type) if place is None else _conformed(arrays[place], one.type)
        for place, one in zip(found, wanted, strict=True)
    ]


def _conformed(array: Any, wanted: pa.DataType) -> Any:
    if pt.is_struct(wanted):
        fields = list(array.type)
        arrays = [pc.struct_field(array, place) for place in range(len(fields))]
        children = _children(fields, list(wanted), arrays, len(array))
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
    if pt.is_list(wanted):
        if array.offset:  # a slice of a list's items cannot be given a mask
            array = array.take(pa.array(range(len(array))))
        values = _conformed(array.values, wanted.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, type=wanted, mask=array.is_null())
    return array if array.type.equals(wanted) else array.cast(wanted)


def field_id(field: pa.Field) -> bytes | None:
    """Return a field's id in a Parquet file, None if it has none."""
    return (field.metadata or {}).get(FIELD_ID)
