"""The door to object stores: what a job says of them, and the filesystem behind a URI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from pyarrow import fs

from pipeline.errors import one_line
from pipeline.lake.object_store import ObjectStore
from pipeline.lake.store_clients import bucket_of
from pipeline.store_settings import SCHEMES, Store

_DEFAULT = Store()


@dataclass(frozen=True, slots=True)
class Stores:
    """Settings of stores by the beginning of their URIs. Hashable; travels between processes."""

    settings: tuple[tuple[str, Store], ...] = ()

    @classmethod
    def of(cls, stores: Mapping[str, Store]) -> Stores:
        """Take the `stores` of a job."""
        return cls(tuple(sorted(stores.items(), key=lambda item: item[0])))

    def store(self, uri: str) -> Store:
        """Return the settings for a URI: those of the longest beginning that fits."""
        fits = [item for item in self.settings if _begins(uri, item[0])]
        return max(fits, key=lambda item: len(item[0]))[1] if fits else _DEFAULT

    def filesystem(self, uri: str) -> tuple[fs.FileSystem, str]:
        """Return the filesystem of a local path or URI, and the path inside it.

        Raises
        ------
        ValueError
            If the URI's scheme is unknown, or it names no bucket.
        OSError
            If the store cannot be reached with its settings and credentials.
        """
        if "://" not in uri:
            return fs.LocalFileSystem(), uri
        scheme, _, rest = uri.partition("://")
        if scheme == "file":
            # pyarrow takes no name that is not UTF-8; the system does.
            return fs.LocalFileSystem(), os.fsdecode(unquote_to_bytes(rest))
        if scheme not in SCHEMES:
            return _of_arrow(uri)
        bucket = bucket_of(uri, self.store(uri))
        try:
            bucket.client()
        except ValueError as error:  # what is wrong with the settings is not the URI's fault
            raise OSError(one_line(error)) from error
        key = unquote(rest.partition("?")[0].partition("/")[2]).strip("/")
        store = ObjectStore(bucket)
        return fs.PyFileSystem(store), store.path(key)


def _begins(uri: str, beginning: str) -> bool:
    """Say whether a URI begins so, with whole names: s3://open is not the beginning of openly."""
    ends = beginning[-1:] in ("", "/")
    return uri.startswith(beginning) and (ends or uri[len(beginning) :][:1] in ("", "/", "?", "@"))


def _of_arrow(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except ValueError as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
        known = ", ".join(f"{scheme}://" for scheme in (*SCHEMES, "hdfs", "file"))
        raise ValueError(
            f"unknown scheme {uri.partition('://')[0]}://; there are {known}"
        ) from error
    return filesystem, path


def object_store(filesystem: fs.FileSystem) -> ObjectStore | None:
    """Return the object store behind a filesystem; None if it is something else."""
    handler = filesystem.handler if isinstance(filesystem, fs.PyFileSystem) else None
    return handler if isinstance(handler, ObjectStore) else None
