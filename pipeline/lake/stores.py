"""The door to object stores: what a job says of them, and the filesystem behind a URI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, unquote_to_bytes

from pyarrow import fs

from pipeline.store_settings import Store

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
        fits = [item for item in self.settings if uri.startswith(item[0])]
        return max(fits, key=lambda item: len(item[0]))[1] if fits else _DEFAULT

    def filesystem(self, uri: str) -> tuple[fs.FileSystem, str]:
        """Return the filesystem of a local path or URI, and the path inside it.

        Raises
        ------
        ValueError
            If the URI's scheme is unknown.
        OSError
            If the store cannot be reached with its settings.
        """
        if "://" not in uri:
            return fs.LocalFileSystem(), uri
        if uri.startswith("file://"):
            # pyarrow takes no name that is not UTF-8; the system does.
            return fs.LocalFileSystem(), os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
        return _filesystem(uri, self.store(uri))


def _filesystem(uri: str, store: Store) -> tuple[fs.FileSystem, str]:
    scheme, _, rest = uri.partition("://")
    if scheme == "s3" and "?" not in rest and (store.endpoint or store.region):
        # Whoever asks pyarrow about the URI lets it look for the bucket's region at AWS.
        return _s3(store, store.region or "us-east-1"), unquote(rest).rstrip("/")
    found, path = fs.FileSystem.from_uri(uri)
    return found, path


@lru_cache
def _s3(store: Store, region: str) -> fs.S3FileSystem:
    """One client a process and setting: it holds connections."""
    options = {"endpoint_override": store.endpoint} if store.endpoint else {}
    return fs.S3FileSystem(
        region=store.region or region,
        anonymous=store.anonymous,
        request_timeout=store.timeout_s,
        connect_timeout=store.timeout_s,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=store.attempts),
        **options,
    )
