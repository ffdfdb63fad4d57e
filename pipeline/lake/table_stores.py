"""Settings of stores in the words of the clients that Delta Lake and Iceberg bring along.

They are those of our own clients (`pipeline.lake.store_clients`): the job's, the environment's and
a profile's, so that a table is reached as its output is. Secrets stay in memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from pipeline.errors import OutputError
from pipeline.lake.aws import AwsKeys
from pipeline.lake.store_clients import Bucket, S3Access, s3_access, with_environment
from pipeline.store_settings import Store

_LONGEST_PAUSE_S: Final = 20.0
_VENDORS: Final = {"s3": "aws", "gs": "google", "az": "azure"}
_SIGNING: Final = ("s3.access-key-id", "s3.profile-name", "s3.anonymous", "s3.signer")


def delta_options(bucket: Bucket) -> dict[str, str]:
    """Return deltalake's `storage_options` for a bucket.

    Raises
    ------
    ValueError
        If the settings do not fit together, or there are no credentials.
    """
    store = bucket.store
    options: dict[str, Any] = {
        "timeout": _milliseconds(store.timeout_s),
        "connect_timeout": _milliseconds(store.timeout_s),
        "max_retries": str(store.attempts - 1),
        "retry_timeout": _milliseconds(store.attempts * (store.timeout_s + _LONGEST_PAUSE_S)),
    }
    endpoint = store.endpoint
    if bucket.kind == "s3":
        access = s3_access(store)
        endpoint = access.endpoint
        options |= {"aws_endpoint_url": endpoint, "aws_region": access.region_of(bucket.name)}
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        options |= dict(zip(names, _keys(access), strict=True))
        if options["aws_access_key_id"] and not options["aws_session_token"]:
            _refuse_strange_token()
    elif bucket.kind == "gs":
        options["google_base_url"] = endpoint
    else:
        options |= {"azure_endpoint": endpoint, "azure_storage_account_name": store.account}
    if store.anonymous:
        options[f"{_VENDORS[bucket.kind]}_skip_signature"] = "true"
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = "true"
    return _given(options)


def iceberg_properties(bucket: Bucket, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return pyiceberg's properties for a warehouse: what `configured`, the catalog's own
    configuration, says goes before the job's and the environment's settings.

    Raises
    ------
    OutputError
        If pyiceberg has no such setting.
    ValueError
        If the profile is not there.
    """
    store = bucket.store
    if bucket.kind == "s3":
        return s3_properties(store, configured)
    lacks = {"anonymous": store.anonymous, "endpoint": store.endpoint and bucket.kind == "az"}
    prefix = {"gs": "gcs.", "az": "adls."}[bucket.kind]
    for name in [name for name, is_set in lacks.items() if is_set]:
        if not any(key.startswith(prefix) for key in configured):
            raise OutputError(
                f"stores.{name}: cannot be handed on to Iceberg for {bucket.root}; give the "
                f"catalog its {prefix}* properties, or use output.format delta"
            )
    if bucket.kind == "gs":
        return {**_given({"gcs.service.host": store.endpoint}), **configured}
    return {**_given({"adls.account-name": store.account}), **configured}


def s3_properties(store: Store, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return pyiceberg's properties for S3, of which no bucket need be known yet.

    Raises
    ------
    ValueError
        If the profile is not there.
    """
    store = with_environment("s3", store)
    signs = not any(key in configured for key in _SIGNING)
    try:
        access = s3_access(store)
    except ValueError:
        if signs and store.profile is not None:
            raise
        access = S3Access(AwsKeys(), store.endpoint, store.region)  # a catalog may hand out keys
    properties = {
        "s3.endpoint": access.endpoint,
        "s3.region": access.region,
        "s3.connect-timeout": f"{store.timeout_s:g}",
        "s3.request-timeout": f"{store.timeout_s:g}",
    }
    if signs:
        names = ("s3.access-key-id", "s3.secret-access-key", "s3.session-token")
        properties |= dict(zip(names, _keys(access), strict=True))
        properties["s3.anonymous"] = "true" if store.anonymous else None
    return {**_given(properties), **configured}


def _keys(access: S3Access) -> tuple[str | None, str | None, str | None]:
    """Return a profile's key, secret and token; Nones if the client finds its keys itself."""
    if access.keys.provider is None:
        return None, None, None
    found = access.keys.provider()
    return found["access_key_id"], found["secret_access_key"], found.get("token")


def _refuse_strange_token() -> None:
    """deltalake completes what it is given from the environment."""
    if os.environ.get("AWS_SESSION_TOKEN"):
        raise OutputError(
            "output.format delta: AWS_SESSION_TOKEN does not belong to the keys of stores.profile; "
            "unset it"
        )


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _given(settings: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if value is not None}
