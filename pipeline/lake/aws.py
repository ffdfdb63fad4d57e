"""Keys for S3 from the files that Amazon's own tools use: ~/.aws/config and ~/.aws/credentials."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from configparser import Error, RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ELSEWHERE = ("sso_session", "sso_start_url", "role_arn", "credential_process")
"""Keys of a profile whose credentials somebody else must be asked for."""

_OF_THE_MACHINE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """What a profile gives: a function that returns credentials (None: the client looks for them
    itself, in the environment and at the machine's own service), a region and an endpoint."""

    provider: Callable[[], Any] | None = None
    region: str | None = None
    endpoint: str | None = None


def aws_keys(profile: str | None) -> AwsKeys:
    """Return the keys of a profile; None means AWS_PROFILE or "default", after the environment's.

    Raises
    ------
    ValueError
        If a profile that was asked for is not there, or there are no credentials at all.
    """
    name = profile or os.environ.get("AWS_PROFILE") or "default"
    settings = _profile(name)
    region, endpoint = settings.get("region"), settings.get("endpoint_url")
    if profile is None and os.environ.get("AWS_ACCESS_KEY_ID"):
        return AwsKeys(None, region, endpoint)
    if "aws_access_key_id" in settings and "aws_secret_access_key" in settings:
        return AwsKeys(lambda: _static(settings), region, endpoint)
    if any(key in settings for key in _ELSEWHERE):
        return AwsKeys(_asked_for(name), region, endpoint)
    if not settings and (profile or os.environ.get("AWS_PROFILE")):
        raise ValueError(f"there is no profile '{name}' in ~/.aws/config or ~/.aws/credentials")
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" and not any(
        os.environ.get(variable) for variable in _OF_THE_MACHINE
    ):
        raise ValueError(
            "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "stores.profile, or stores.anonymous: true for public data"
        )
    return AwsKeys(None, region, endpoint)


def _profile(name: str) -> Mapping[str, str]:
    """Return what both files say of a profile; the keys of the credentials file count."""
    found: dict[str, str] = {}
    for variable, path, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        file = Path(os.environ.get(variable) or path).expanduser()
        parser = RawConfigParser(default_section="\0", strict=False)
        try:
            parser.read(file, "utf-8")
        except (OSError, Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read ({type(error).__name__}); mend it") from error
        if parser.has_section(section):
            found.update(parser[section])
    return found


def _static(settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "access_key_id": settings["aws_access_key_id"],
        "secret_access_key": settings["aws_secret_access_key"],
        "token": settings.get("aws_session_token"),
        "expires_at": None,
    }


def _asked_for(name: str) -> Callable[[], Any]:
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ValueError(
            f"the keys of profile '{name}' come from a login or a role: pip install pagelake[aws]"
        ) from error
    provider: Callable[[], Any] = Boto3CredentialProvider(boto3.Session(profile_name=name))
    return provider
