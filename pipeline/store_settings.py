"""How to reach object stores: the settings in a job file's `stores`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from pipeline.section import Location, Section

SCHEMES: Final = {
    "s3": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
}
"""The schemes of object stores, and which kind of store speaks each."""

_OF_KIND: Final = {"region": "s3", "profile": "s3", "account": "az"}


def is_object(uri: str) -> bool:
    """Say whether a URI is one of an object store."""
    scheme, mark, _ = uri.partition("://")
    return bool(mark) and scheme in SCHEMES


class Store(Section):
    """How to reach one store. Keys and secrets come from the environment or a profile, never here.

    What is None is left to the store's own library: environment, configuration files, instance.
    """

    endpoint: Location | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+(/[^?#]*)?$",
        description="The service's address, such as http://minio:9000, if it is not the vendor's.",
    )
    region: str | None = Field(
        default=None, min_length=1, description="The bucket's region; found out if null (s3)."
    )
    profile: str | None = Field(
        default=None,
        min_length=1,
        description="A profile of ~/.aws/config or ~/.aws/credentials (s3).",
    )
    anonymous: bool = Field(default=False, description="Send no credentials: public data.")
    account: str | None = Field(
        default=None, min_length=1, description="The storage account's name (az, abfs)."
    )
    attempts: int = Field(
        default=5, ge=1, le=20, description="Times that a request is tried, with longer pauses."
    )
    timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds that a store may say nothing."
    )


def _checked(stores: Mapping[str, Store]) -> Mapping[str, Store]:
    for beginning, store in stores.items():
        found = re.match("([a-z0-9]+)://", beginning)
        kind = SCHEMES.get(found[1]) if found else None
        if kind is None:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f"'{beginning}' must begin with one of {known}")
        for key, only in _OF_KIND.items():
            if getattr(store, key) is not None and kind != only:
                raise ValueError(f"'{beginning}': {key} is for {only}:// stores; remove it")
        if store.profile is not None and store.anonymous:
            raise ValueError(f"'{beginning}': anonymous sends no keys; remove profile or anonymous")
    return stores


StoreSettings = Annotated[Mapping[Location, Store], AfterValidator(_checked)]
"""Settings by the beginning of URIs, such as "s3://" or "s3://bucket/folder"."""
