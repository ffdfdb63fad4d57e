"""A bucket as a filesystem of pyarrow's, with obstore's client behind it.

pyarrow has clients of its own, but of what a job says they hear little: that of Google knows no
number of attempts, that of Azure no timeout, that of Amazon no profile; and none streams a listing
or puts an object only if nobody else has.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, cast

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from pyarrow import fs

from pipeline.lake.store_clients import Bucket
from pipeline.lake.store_errors import (
    CredentialsError,
    NoBucketError,
    ReplacedError,
    TransientError,
    in_one_line,
    is_unknown,
    whole,
)

_STREAM, _RANDOM = 8 << 20, 1 << 20
"""Bytes fetched at once, at least, from an object read through, and one read here and there."""


class ChangedError(Exception):
    """An object was to be put over a certain version, and there is another."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a store calls a version of an object: Google's by `number`, others by `e_tag`."""

    e_tag: str | None = None
    number: str | None = None

    @property
    def condition(self) -> dict[str, str]:
        """The condition that there is this version, as the client takes it."""
        told = {"e_tag": self.e_tag, "version": self.number}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class ObjectStore(fs.FileSystemHandler):  # type: ignore[misc]
    """Objects of one bucket. Paths begin with its name, as those of pyarrow's own stores do.

    Methods raise what `store_errors.in_one_line` does.
    """

    bucket: Bucket

    def path(self, key: str) -> str:
        """Return the path of a key."""
        return f"{self.bucket.name}/{key}" if key else self.bucket.name

    def key(self, path: str) -> str:
        """Return the key of a path."""
        return path.removeprefix(self.bucket.name).strip("/")

    # What pyarrow's filesystems do not know.

    def read(self, path: str) -> bytes:
        """Return an object whole."""
        return self.version(path)[0]

    def put(self, path: str, data: bytes | IO[bytes]) -> None:
        """Put an object, whole or not at all, over an older one if there is one."""
        key = self.key(path)
        with in_one_line(self.bucket, key):
            obstore.put(self._client, key, data)

    def version(self, path: str) -> tuple[bytes, Version]:
        """Return a small object, and its version."""
        key = self.key(path)

        def ask() -> tuple[bytes, Version]:
            found = obstore.get(self._client, key)
            return bytes(found.bytes()), Version(found.meta["e_tag"], found.meta["version"])

        return whole(self.bucket, key, ask)

    def put_over(self, path: str, data: bytes, version: Version | None) -> None:
        """Put a small object over that version of it only; None is over nothing.

        Raises
        ------
        ChangedError
            If there is another version, or none.
        NotImplementedError
            If the store knows no such condition.
        """
        key = self.key(path)
        mode: Any = "create" if version is None else version.condition
        with in_one_line(self.bucket, key):
            try:
                obstore.put(self._client, key, data, mode=mode)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if "NoSuchBucket" in str(error):
                    raise
                raise ChangedError from error
            except BaseError as error:
                if is_unknown(error):
                    raise NotImplementedError from error
                raise

    def pages(self, prefix: str, after: str | None) -> Iterator[list[fs.FileInfo]]:
        """Yield the objects below a key, by the page; only those with later keys than `after`."""
        with in_one_line(self.bucket, prefix):
            for page in obstore.list(self._client, prefix or None, offset=after, chunk_size=1000):
                yield [self._info(one) for one in page]

    def trouble(self, error: Exception) -> Exception | None:
        """Return what is wrong with the bucket as a whole, None if an error is one object's.

        An answer about one object is held against the bucket only if it cannot be listed either.
        """
        if isinstance(error, ValueError | CredentialsError | NoBucketError):
            return error
        if isinstance(error, TransientError | PermissionError):
            try:
                next(self.pages("", None), None)
            except (TransientError, CredentialsError, NoBucketError) as found:
                return found
            except OSError:  # it may not be listed, and says so
                return None
        return None

    # What pyarrow asks of a filesystem.

    def get_type_name(self) -> str:
        """Name the kind of store."""
        return self.bucket.kind

    def normalize_path(self, path: str) -> str:
        """Leave paths as they are."""
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        """Look at objects; a key that others begin with, and a slash, is a folder."""
        return [self._look(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """List a folder, held whole."""
        prefix = self.key(selector.base_dir)
        if selector.recursive:
            every = self.pages
            return whole(
                self.bucket, prefix, lambda: [one for page in every(prefix, None) for one in page]
            )
        client = self._client
        found = whole(
            self.bucket, prefix, lambda: obstore.list_with_delimiter(client, prefix or None)
        )
        folders = [
            fs.FileInfo(self.path(name), fs.FileType.Directory) for name in found["common_prefixes"]
        ]
        return folders + [self._info(one) for one in found["objects"]]

    def delete_file(self, path: str) -> None:
        """Delete an object; no error if there is none."""
        key = self.key(path)
        with in_one_line(self.bucket, key):
            obstore.delete(self._client, key)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """Open an object to read it through."""
        return self._open(path, _STREAM)

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open an object for random access."""
        return self._open(path, _RANDOM)

    def open_output_stream(self, path: str, metadata: object) -> pa.PythonFile:
        """Open an object to write; it is put when it is closed."""
        del metadata
        return pa.PythonFile(_Upload(self, path), mode="w")

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: there are no folders."""

    def _unknown(self, *_: object) -> Any:
        raise NotImplementedError("object stores do not know this")

    delete_dir = delete_dir_contents = delete_root_dir_contents = _unknown
    move = copy_file = open_append_stream = _unknown

    @property
    def _client(self) -> Any:
        return self.bucket.client()

    def _look(self, path: str) -> fs.FileInfo:
        key = self.key(path)
        try:
            if key:
                with in_one_line(self.bucket, key):
                    return self._info(obstore.head(self._client, key))
        except FileNotFoundError:
            pass
        below = whole(self.bucket, key, lambda: any(self.pages(key, None)))
        return fs.FileInfo(path, fs.FileType.Directory if below else fs.FileType.NotFound)

    def _info(self, found: Any) -> fs.FileInfo:
        # Some stores tell parts of seconds when they list an object and not when it is looked at.
        modified = datetime.fromtimestamp(int(found["last_modified"].timestamp()), UTC)
        path = self.path(found["path"])
        return fs.FileInfo(path, fs.FileType.File, size=found["size"], mtime=modified)

    def _open(self, path: str, buffer: int) -> pa.PythonFile:
        key = self.key(path)
        with in_one_line(self.bucket, key):
            found = obstore.head(self._client, key)
        ranges = _Ranges(self, key, found["size"], found["e_tag"])
        return pa.PythonFile(io.BufferedReader(ranges, buffer), mode="r")


class _Ranges(io.RawIOBase):
    """An object as a file to read: each read is a request for a range of it.

    All ranges are of the version that was opened, where the store tells versions apart by an
    entity tag; ReplacedError if there is another one by then.
    """

    def __init__(self, store: ObjectStore, key: str, size: int, e_tag: str | None) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0
        self._e_tag = e_tag

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            buffer[:length] = memoryview(whole(self._store.bucket, self._key, self._ask(length)))
            self._at += length
        return length

    def _ask(self, length: int) -> Callable[[], Any]:
        client, bucket = self._store.bucket.client(), self._store.bucket
        options: dict[str, Any] = {"range": (self._at, self._at + length)}
        if self._e_tag is not None and not self._e_tag.startswith("W/"):  # a weak one matches none
            options["if_match"] = self._e_tag

        def ask() -> Any:
            found = obstore.get(client, self._key, options=cast(Any, options))
            told = found.meta["e_tag"]
            if None not in (self._e_tag, told) and told != self._e_tag:  # a condition not heeded
                raise ReplacedError.of(f"{bucket.root}/{self._key}")
            return found.bytes()

        return ask


class _Upload(tempfile.SpooledTemporaryFile[bytes]):
    """What is written, kept on this machine until it is closed and put."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        super().__init__(_STREAM)
        self._store, self._path = store, path

    def close(self) -> None:
        if not self.closed:
            self.seek(0)
            self._store.put(self._path, cast(IO[bytes], self))
        super().close()
