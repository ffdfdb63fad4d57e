"""How to reach object stores: the settings in a job file's `stores`."""

from __future__ import annotations

from pydantic import Field

from pipeline.section import Location, Section


class Store(Section):
    """How to reach one store. Keys and secrets come from the environment or a profile, never here.

    What is None is left to the store's own library: environment, configuration files, instance.
    """

    endpoint: Location | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+/?$",
        description="The service's address, such as http://minio:9000, if it is not the vendor's.",
    )
    region: str | None = Field(default=None, min_length=1, description="The store's region (s3).")
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
