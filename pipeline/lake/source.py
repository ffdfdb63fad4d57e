"""Reading input documents, wherever they are: local paths, object stores, and web addresses."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from pipeline.errors import InputError, ItemError, one_line
from pipeline.job import Job
from pipeline.lake.entry import modified_text
from pipeline.lake.http import fetch, is_http
from pipeline.lake.store_errors import complaint
from pipeline.lake.stores import Stores, object_store
from pipeline.records import FailureKind

TOLD = "told: "
"""How `modified` begins of a document that nobody has looked at: a manifest told of it."""

NO_HTTP = "web addresses are read only with input.http: true"


def _size_and_modified(store: fs.FileSystem, path: str) -> tuple[int, str] | None:
    if isinstance(store, fs.LocalFileSystem):  # which takes no name that is not UTF-8
        status = Path(path).stat()
        return (status.st_size, str(status.st_mtime_ns)) if stat.S_ISREG(status.st_mode) else None
    info = store.get_file_info(path)
    return (info.size, modified_text(info)) if info.type == fs.FileType.File else None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job's documents are read. Of web addresses `http_bytes` at most; 0 means none."""

    stores: Stores = Stores()
    http_bytes: int = 0

    @classmethod
    def of(cls, job: Job) -> Source:
        """Return where a job reads."""
        return cls(Stores.of(job.stores), job.input.http_bytes)

    def check_unchanged(self, uri: str, size: int, modified: str) -> None:
        """Raise ItemError `source_missing` or `source_changed` if a document is not as listed.

        Of a web address nothing is listed, and what a manifest told is taken at its word.
        """
        if is_http(uri) or modified.startswith(TOLD):
            return
        store, path = self._filesystem(uri)
        try:
            found = _size_and_modified(store, path)
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as error:
            raise _blamed(store, error) from error
        if found is None:
            raise ItemError(FailureKind.SOURCE_MISSING, "there is no such file")
        if found != (size, modified):
            raise ItemError(FailureKind.SOURCE_CHANGED, "the file changed after it was listed")

    def content(self, uri: str) -> Path | bytes:
        """Return a local document's path as it is, and any other document's bytes, read whole.

        Raises
        ------
        ItemError
            `source_missing` if the store does not give the bytes; `source_too_large`.
        InputError
            If the store gives nothing to anybody with these settings.
        RunError
            If the store is away: of the document that says nothing.
        """
        if is_http(uri):
            if self.http_bytes == 0:
                raise ItemError(FailureKind.SOURCE_MISSING, NO_HTTP)
            return fetch(uri, self.http_bytes)
        store, path = self._filesystem(uri)
        if isinstance(store, fs.LocalFileSystem):
            return Path(path)
        try:
            if (bucket := object_store(store)) is not None:
                return bucket.read(path)
            with store.open_input_stream(path) as stream:
                data: bytes = stream.read()
        except (OSError, ValueError) as error:
            raise _blamed(store, error) from error
        return data

    def _filesystem(self, uri: str) -> tuple[fs.FileSystem, str]:
        try:
            return self.stores.filesystem(uri)
        except (OSError, ValueError) as error:
            raise ItemError(FailureKind.SOURCE_MISSING, one_line(error)) from error


def _blamed(store: fs.FileSystem, error: OSError | ValueError) -> Exception:
    """Return what to raise: a store that is away, or knows no such keys, would fail all documents
    one by one, and say nothing of any of them."""
    bucket = object_store(store)
    if bucket is not None and (found := bucket.trouble(error)) is not None:
        said = f"reading the input broke off: {one_line(found)}"
        return complaint(InputError, said, found, "; mend that, and run again")
    strerror = error.strerror if isinstance(error, OSError) else None
    return ItemError(FailureKind.SOURCE_MISSING, strerror or one_line(error))
