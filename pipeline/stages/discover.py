"""discover: a job's inputs -> Documents, unopened, each file once, in a fixed order.

Listings and manifests are streamed: what is held is a page of a store's keys or one local folder's
names, one batch of manifest rows and, where a file may be named twice, some 20 bytes a document.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileType

from pipeline.credentials import NO_CREDENTIALS, holds_credentials
from pipeline.errors import InputError, RunError, one_line
from pipeline.job import Input
from pipeline.lake.entry import Entry
from pipeline.lake.http import is_http
from pipeline.lake.keys import text_key
from pipeline.lake.listing import LocalTree, Tree, expand, is_glob, locate, walk
from pipeline.lake.seen import Seen
from pipeline.lake.source import NO_HTTP, TOLD
from pipeline.lake.store_errors import BadKeyError, complaint
from pipeline.lake.store_listing import StoreTree
from pipeline.lake.stores import Stores
from pipeline.records import Document, MediaType

MEDIA_TYPES: Mapping[str, MediaType] = {
    ".pdf": MediaType.PDF,
    ".png": MediaType.PNG,
    ".jpg": MediaType.JPEG,
    ".jpeg": MediaType.JPEG,
    ".webp": MediaType.WEBP,
    ".tif": MediaType.TIFF,
    ".tiff": MediaType.TIFF,
}
"""The extensions, in any case, that are picked up from folders and by wildcards."""

_ROWS = 1024  # of a manifest at a time
_LOOKUPS = 32  # at once: a store is slow to answer, but answers many

_Row = dict[str, str]


def discover(input: Input, stores: Stores = Stores()) -> Discovery:
    """List a job's input.

    A manifest row whose file is not there still gives a Document, of size -1, so that it ends as a
    row of the tables.
    Raises InputError, here or while iterating, if a path, glob or manifest cannot be used, or a
    store does not say whether a row's file is there; RunError if that may pass.
    """
    return Discovery(input, stores)


class Discovery(Iterator[Document]):
    """The documents of a job's input, as an iterator that also counts what it passed over.

    `ignored` is the number of files so far that folders and wildcards held and that are of no
    type we read, links to folders included; `columns` are the manifest's, but for the one of uris.
    With `may_be_empty`, a glob that matches nothing in a folder that is there, or a store's folder
    without an object, is no mistake.
    """

    def __init__(
        self, input: Input, stores: Stores = Stores(), *, may_be_empty: bool = False
    ) -> None:
        self.ignored = 0
        self.columns: tuple[str, ...] = ()
        self._may_be_empty = may_be_empty
        self._seen: Seen | None = None
        self._http = input.http
        self._stores = stores
        listings = [self._listing(path) for path in input.paths]
        if input.manifest is not None:
            columns, documents = _manifest_documents(input, stores)
            self.columns = tuple(one for one in columns if one != input.uri_column)
            listings.append(documents)
        if len(listings) > 1 or input.manifest is not None or _may_repeat(input.paths[0]):
            self._seen = Seen()
        self._documents = chain.from_iterable(listings)

    def __next__(self) -> Document:
        """Return the next document not seen before."""
        try:
            for document in self._documents:
                if self._seen is None or self._seen.add(text_key(document.uri)):
                    return document
        except (OSError, ValueError) as error:
            said = f"listing the input broke off: {one_line(error)}"
            if _of_the_system(error):
                raise RunError(f"{said}; run again") from error
            raise complaint(InputError, said, error, "; mend that, and run again") from error
        raise StopIteration

    def _listing(self, path: str) -> Iterator[Document]:
        """Check now that the path is there; list it when asked."""
        if is_http(path):
            if not self._http:
                raise InputError(f"input {path!r}: {NO_HTTP}")
            return iter([_at_address(path)])
        try:
            tree, place = locate(path, LocalTree(), str(Path.cwd()), self._stores)
            entry = tree.entry(place)
            if entry.kind is FileType.File:
                return iter([_document(tree, entry)])
            if entry.kind is FileType.Directory:
                return self._of_known_types(tree, walk(tree, place))
            found = expand(tree, place) if is_glob(place) else iter(())
            first = next(found, None)
        except (OSError, ValueError, NotImplementedError) as error:
            said = f"input {path!r} cannot be listed: {one_line(error)}"
            raise complaint(InputError, said, error) from error
        if first is None and self._may_be_empty and _is_empty_place(tree, place):
            return iter(())
        if first is None:
            what = "matches no file" if is_glob(place) else "is no file or folder"
            raise InputError(f"input {path!r} {what}; mend input.paths or --input")
        entries = chain([first], found)
        suffix = posixpath.splitext(place)[1]
        if suffix and not is_glob(suffix):  # the pattern itself says which type is wanted
            return (_document(tree, entry) for entry in entries)
        return self._of_known_types(tree, entries)

    def _of_known_types(self, tree: Tree, entries: Iterable[Entry]) -> Iterator[Document]:
        for entry in entries:
            if entry.kind is FileType.Unknown or _suffix(entry.path) not in MEDIA_TYPES:
                self.ignored += 1
            else:
                yield _document(tree, entry)


def _is_empty_place(tree: Tree, place: str) -> bool:
    """Say whether something may come to be at a place without a file; stores know no folders."""
    if not isinstance(tree, LocalTree):
        return True
    folder = place
    while is_glob(folder):
        folder = posixpath.dirname(folder)
    return is_glob(place) and tree.entry(folder).kind is FileType.Directory


def _of_the_system(error: Exception) -> bool:
    """True of a disk's error, or of a folder that went away while it was listed."""
    of_the_system = isinstance(error, OSError) and error.errno is not None
    return of_the_system and not isinstance(error, PermissionError)


def _may_repeat(path: str) -> bool:
    """True of a glob by which one listing may come to a file on two ways."""
    return path.count("**") > 1


def _document(tree: Tree, entry: Entry, source: Mapping[str, str] | None = None) -> Document:
    media_type = MEDIA_TYPES.get(_suffix(entry.path), MediaType.PDF)
    return Document(tree.uri(entry.path), entry.size, entry.modified, media_type, source or {})


def _at_address(uri: str, source: Mapping[str, str] | None = None) -> Document:
    """A web address, of which nothing is known: nobody asks there before it is planned."""
    media_type = MEDIA_TYPES.get(_suffix(uri.partition("?")[0]), MediaType.PDF)
    return Document(uri, -1, "", media_type, source or {})


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def _manifest_documents(input: Input, stores: Stores) -> tuple[list[str], Iterator[Document]]:
    """Check the manifest's header now; read its rows when asked."""
    manifest, uri_column = input.manifest or "", input.uri_column
    try:
        tree, place = locate(manifest, LocalTree(), str(Path.cwd()), stores)
        store, path = stores.filesystem(tree.uri(place))
        if _suffix(place) in (".parquet", ".pq"):
            columns, rows = _parquet_rows(pq.ParquetFile(store.open_input_file(path)), manifest)
        else:
            columns, rows = _csv_rows(store.open_input_stream(path), manifest)
    except (OSError, ValueError, csv.Error, NotImplementedError) as error:
        said = f"manifest {manifest!r} cannot be read: {one_line(error)}"
        raise complaint(InputError, said, error) from error
    twice = {column for column in columns if columns.count(column) > 1}
    if twice:
        raise InputError(f"manifest {manifest!r}: column {twice.pop()!r} appears twice; rename one")
    if uri_column not in columns:
        known = ", ".join(columns)
        raise InputError(
            f"manifest {manifest!r} has no column {uri_column!r}; "
            f"set input.uri_column to one of {known}"
        )
    rows = _with_uri(rows, uri_column, manifest, input.http)
    folder = posixpath.dirname(place)
    trust = input.trust_manifest
    return columns, _row_documents(rows, uri_column, tree, folder, stores, trust)


def _with_uri(rows: Iterator[_Row], uri_column: str, manifest: str, http: bool) -> Iterator[_Row]:
    for number, row in enumerate(rows, 1):
        if uri_column not in row:
            raise InputError(f"manifest {manifest!r}: row {number} has no {uri_column}; fill it in")
        if holds_credentials(row[uri_column]):
            raise InputError(f"manifest {manifest!r}: row {number}: {NO_CREDENTIALS}")
        if is_http(row[uri_column]) and not http:
            raise InputError(f"manifest {manifest!r}: row {number}: {NO_HTTP}")
        yield row


def _row_documents(
    rows: Iterator[_Row], uri_column: str, tree: Tree, folder: str, stores: Stores, trust: bool
) -> Iterator[Document]:
    def look_up(row: _Row) -> Document:
        name = row[uri_column]
        source = {column: value for column, value in row.items() if column != uri_column}
        if is_http(name):
            return _at_address(name, source)
        try:
            home, place = locate(name, tree, folder, stores)
        except (ValueError, NotImplementedError):  # no place that there could be
            return Document(name, -1, "", MEDIA_TYPES.get(_suffix(name), MediaType.PDF), source)
        told = trust and isinstance(home, StoreTree)
        return _document(home, _as_told(place, row) if told else _entry(home, place), source)

    with ThreadPoolExecutor(_LOOKUPS) as pool:
        while batch := list(islice(rows, _ROWS)):
            local = isinstance(tree, LocalTree) and not any("://" in r[uri_column] for r in batch)
            yield from map(look_up, batch) if local or trust else pool.map(look_up, batch)


def _entry(tree: Tree, place: str) -> Entry:
    """Look at a row's file. Raises OSError if it cannot be told whether it is there."""
    try:
        return tree.entry(place)
    except BadKeyError:  # of no object that a store lets us read
        return Entry(place, FileType.NotFound)


def _as_told(place: str, row: _Row) -> Entry:
    """Take a row's word for its file. Without both columns, no two runs find the same version."""
    size, modified = row.get("size", ""), row.get("modified", "")
    if not size.isdecimal() or not modified:
        return Entry(place, FileType.File, -1, TOLD)
    return Entry(place, FileType.File, int(size), TOLD + modified)


def _csv_rows(stream: object, manifest: str) -> tuple[list[str], Iterator[_Row]]:
    lines = csv.reader(TextIOWrapper(cast(BinaryIO, stream), "utf-8-sig", newline=""), strict=True)
    columns = next(lines, [])

    def rows() -> Iterator[_Row]:
        try:
            for cells in lines:
                if len(cells) > len(columns):
                    raise csv.Error(f"{len(cells)} cells under {len(columns)} columns")
                if cells:
                    pairs = zip(columns, cells, strict=False)  # a short line lacks the last cells
                    yield {column: cell for column, cell in pairs if cell}
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"manifest {manifest!r}: line {lines.line_num}: {error}; mend it"
            ) from error

    return columns, rows()


def _parquet_rows(file: pq.ParquetFile, manifest: str) -> tuple[list[str], Iterator[_Row]]:
    for column in file.schema_arrow:
        if pa.types.is_nested(column.type):
            raise InputError(
                f"manifest {manifest!r}: column {column.name!r} is a {column.type}; leave it out"
            )

    def rows() -> Iterator[_Row]:
        for batch in file.iter_batches(_ROWS):
            texts = [column.cast(pa.string()).to_pylist() for column in batch.columns]
            for values in zip(*texts, strict=True):
                pairs = zip(batch.schema.names, values, strict=True)
                yield {name: value for name, value in pairs if value}

    return list(file.schema_arrow.names), rows()
