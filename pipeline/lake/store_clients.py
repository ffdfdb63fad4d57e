"""Clients of buckets: a job's settings and the environment's become those of obstore."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import getproxies

from obstore.store import AzureStore, GCSStore, S3Store
from pyarrow.fs import resolve_s3_region

from pipeline.credentials import without_user
from pipeline.lake.aws import AwsKeys, aws_keys
from pipeline.store_settings import SCHEMES, Store

Client = S3Store | GCSStore | AzureStore

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=20)
_NOBODY = "anonymous"
_NO_LIMIT = timedelta(days=1)  # of a whole request: a large document on a slow line is no failure


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket or container, of one kind of store (`s3`, `gs`, `az`), and how to reach it."""

    kind: str
    root: str
    """What its URIs begin with, such as s3://name."""

    name: str
    store: Store
    """With the endpoint and account that the environment may name."""

    @property
    def where(self) -> str:
        """What messages call the service that is asked: its endpoint, or whose it is."""
        endpoint = self.store.endpoint
        if endpoint is None and self.kind == "s3" and not self.store.anonymous:
            endpoint = aws_keys(self.store.profile).endpoint
        return f"the endpoint {without_user(endpoint)}" if endpoint else _VENDORS[self.kind]

    def client(self) -> Client:
        """Return the client: one a process, because it holds connections.

        Raises
        ------
        ValueError
            If the settings do not fit together, or there are no credentials.
        OSError
            If the endpoint has a name that nobody knows.
        """
        return _client(self)

    @property
    def in_key_order(self) -> bool:
        """True if listings come sorted by key: not so in a directory bucket, or an Azure lake."""
        return self.kind != "az" and not self.name.endswith("--x-s3")


_VENDORS = {"s3": "Amazon's S3", "gs": "Google's store", "az": "Azure's store"}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ACCOUNTS = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")


def bucket_of(uri: str, store: Store) -> Bucket:
    """Return the bucket that a URI of an object store names.

    Of s3, `?region=` and `?endpoint_override=` (with `&scheme=`) are understood, as pyarrow does.
    Raises ValueError if there is no bucket; OSError if nobody tells the account of one in Azure.
    """
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    name = unquote(place.partition("/")[0])
    kind = SCHEMES[scheme]
    if kind == "az":
        name, store = _container(name, store, uri)
    if query:
        store = _with_query(store, dict(parse_qsl(query)), uri)
    store = with_environment(kind, store)
    if not name:
        raise ValueError(f"{uri} names no bucket; write {scheme}://bucket/folder")
    return Bucket(kind, f"{scheme}://{place.partition('/')[0]}", name, store)


def with_environment(kind: str, store: Store) -> Store:
    """Return a store's settings with the endpoint that the environment names, if they have none."""
    endpoint = _environment(_ENDPOINTS[kind])
    if store.endpoint is not None or endpoint is None:
        return store
    # Google's own clients send no credentials to what their variable names.
    anonymous = store.anonymous or endpoint == os.environ.get("STORAGE_EMULATOR_HOST")
    endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
    return store.model_copy(update={"endpoint": endpoint, "anonymous": anonymous})


def _container(name: str, store: Store, uri: str) -> tuple[str, Store]:
    """Take container@account.dfs.core.windows.net apart."""
    container, _, host = name.partition("@")
    account = host.partition(".")[0] or store.account or _environment(_ACCOUNTS)
    if not account:
        raise OSError(f"{uri} names no storage account; set stores.account")
    if host and store.account not in (None, account):
        raise ValueError(f"{uri} is of another account than stores.account ({store.account})")
    return container, store.model_copy(update={"account": account})


def _with_query(store: Store, query: Mapping[str, str], uri: str) -> Store:
    unknown = set(query) - {"region", "endpoint_override", "scheme"}
    if unknown or not query or not uri.startswith("s3://"):
        raise ValueError(f"{uri} has a query that is not understood; use the job's stores")
    changes = {"region": query["region"]} if "region" in query else {}
    if host := query.get("endpoint_override"):
        changes["endpoint"] = host if "://" in host else f"{query.get('scheme', 'https')}://{host}"
    return store.model_copy(update=changes)


def _environment(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


@lru_cache
def _client(bucket: Bucket) -> Client:
    store = bucket.store
    common: dict[str, Any] = {
        "client_options": {
            "timeout": _NO_LIMIT,
            "connect_timeout": timedelta(seconds=store.timeout_s),
            "read_timeout": timedelta(seconds=store.timeout_s),
        },
        "retry_config": {
            "max_retries": store.attempts - 1,
            "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
            "retry_timeout": store.attempts * (timedelta(seconds=store.timeout_s) + _LONGEST_PAUSE),
        },
    }
    if store.anonymous:
        common["skip_signature"] = True
    if bucket.kind == "s3":
        return _s3(bucket, common)
    return _gs(bucket, common) if bucket.kind == "gs" else _az(bucket, common)


@dataclass(frozen=True, slots=True)
class S3Access:
    """How a bucket of S3 is reached: its settings, and what the profile and environment add."""

    keys: AwsKeys
    endpoint: str | None
    region: str | None
    """None if only Amazon can tell."""

    def region_of(self, bucket: str) -> str:
        """Return the bucket's region, for which Amazon may be asked."""
        return self.region or _region_of(bucket) or _usual_region(self.keys)


def s3_access(store: Store) -> S3Access:
    """Return how a store of S3 is reached.

    Raises
    ------
    ValueError
        If its profile is not there, or there are no credentials.
    """
    keys = AwsKeys() if store.anonymous else aws_keys(store.profile)
    endpoint, region = store.endpoint or keys.endpoint, store.region
    if region is None and endpoint is not None:
        region = _usual_region(keys)
    return S3Access(keys, endpoint, region)


def _usual_region(keys: AwsKeys) -> str:
    return _environment(_REGIONS) or keys.region or "us-east-1"


def _s3(bucket: Bucket, common: dict[str, Any]) -> S3Store:
    access = s3_access(bucket.store)
    if access.endpoint is not None:
        common["aws_endpoint_url_s3"] = _reachable(access.endpoint, common)
    if access.keys.provider is not None:
        common["credential_provider"] = access.keys.provider
    return S3Store(bucket.name, region=access.region_of(bucket.name), **common)


@lru_cache
def _region_of(bucket: str) -> str | None:
    """Ask Amazon where a bucket is; whoever may not read it is told too."""
    try:
        region: str = resolve_s3_region(bucket)
    except OSError:  # the first request will say what is wrong
        return None
    return region


def _gs(bucket: Bucket, common: dict[str, Any]) -> GCSStore:
    if bucket.store.endpoint is not None:
        common["base_url"] = _reachable(bucket.store.endpoint, common)
        if bucket.store.anonymous:  # or writing asks the machine it is on for credentials
            common["bearer_token"] = _NOBODY
    return GCSStore(bucket.name, **common)


def _az(bucket: Bucket, common: dict[str, Any]) -> AzureStore:
    if bucket.store.endpoint is not None:
        common["endpoint"] = _reachable(bucket.store.endpoint, common)
    return AzureStore(bucket.name, account_name=bucket.store.account, **common)


def _reachable(endpoint: str, common: dict[str, Any]) -> str:
    """Allow plain http if asked for, and refuse a host that there is not: nobody should wait."""
    parts = urlsplit(endpoint)
    if parts.scheme == "http":
        common["client_options"]["allow_http"] = True
    host = parts.hostname or ""
    if not re.fullmatch(r"[\d.]+|.*:.*", host) and not getproxies():
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                raise OSError(
                    f"the endpoint {without_user(endpoint)} has no address; mend stores.endpoint"
                ) from error
    return endpoint.rstrip("/")
