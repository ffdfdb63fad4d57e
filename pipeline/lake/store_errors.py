"""What an object store's client says, as one line: what, where and the mend, and no secret.

The client's own words quote addresses, whose queries may hold a signature.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from pipeline.credentials import without_secrets
from pipeline.errors import RunError, UserError
from pipeline.lake.store_clients import Bucket

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 20.0
_NO_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")
_NO_BUCKET = (*_NO_BUCKET_CODES, "The specified bucket does not exist")
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")

FINAL_CODES = frozenset({*_NO_BUCKET_CODES, *_BAD_KEYS, "AccessDenied", "AuthenticationFailed"})
"""Codes of answers to what is no use trying again."""


@contextmanager
def in_one_line(bucket: Bucket, key: str) -> Iterator[None]:
    """Turn the client's errors into OSErrors of one line.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    PermissionError
        If the store does not let us.
    TransientError
        If it does not answer, or not as it should, which may pass.
    OSError
        For all else.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise _absent(bucket, f"{bucket.root}/{key}", str(error)) from error
    except (BaseError, ValueError) as error:
        if isinstance(error, ValueError) and "parse path" not in str(error):
            raise  # wrong settings have been told already
        raise _said(bucket, f"{bucket.root}/{key}", error) from error


class TransientError(OSError):
    """What may pass by itself, with nothing to be mended."""


class BrokenOffError(TransientError):
    """An answer that began and did not end. The client does not try again by itself."""


class ReplacedError(TransientError):
    """An object that is another version by now than the one that was opened."""

    @classmethod
    def of(cls, uri: str) -> ReplacedError:
        """Say which."""
        return cls(f"{uri} changed while it was read")


class BadKeyError(OSError):
    """A key that the client cannot address."""


class NoBucketError(OSError):
    """A bucket that there is not."""


class CredentialsError(PermissionError):
    """Keys that the store does not know, or that have run out; or none."""


def complaint(
    kind: type[UserError], said: str, error: Exception, mend: str = ""
) -> UserError | RunError:
    """Return what to raise for an error of a place that the user named, and what was said of it.

    It is of `kind`, and followed by the mend; but a RunError if it may pass.
    """
    if isinstance(error, TransientError):
        return RunError(f"{said}; run again later")
    return kind(f"{said}{mend}")


def whole(bucket: Bucket, key: str, ask: Callable[[], T]) -> T:
    """Return an answer; one that breaks off is asked for again, as often as the job says.

    Raises what `in_one_line` does.
    """
    failed = 0
    while True:
        try:
            with in_one_line(bucket, key):
                return ask()
        except BrokenOffError:
            failed += 1
            if failed >= bucket.store.attempts:
                raise
            pause(failed)


def pause(failed: int) -> None:
    """Wait after so many tries that failed, longer each time and at random, as the client does."""
    time.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failed) * random.uniform(0.5, 1))


def _absent(bucket: Bucket, uri: str, said: str) -> OSError:
    if any(word in said for word in _NO_BUCKET):
        return NoBucketError(f"{bucket.root}: no such bucket at {bucket.where}")
    return FileNotFoundError(f"{uri}: there is no such object")


def _said(bucket: Bucket, uri: str, error: Exception) -> OSError:
    said, tries = str(error), bucket.store.attempts
    status, where = _status(said), bucket.where
    if isinstance(error, PreconditionError):
        return ReplacedError.of(uri)
    if any(word in said for word in _NO_BUCKET):
        return NoBucketError(f"{bucket.root}: no such bucket at {where}")
    if "169.254.169.254" in said or "metadata.google.internal" in said:
        return CredentialsError(
            f"{uri}: no credentials found; set them in the environment, or stores.anonymous: true"
        )
    bad_keys = any(word in said for word in _BAD_KEYS)
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if denied or status in (401, 403) or bad_keys:
        return (CredentialsError if bad_keys else PermissionError)(
            f"{uri}: access denied ({status or 403}); check the keys or set stores.anonymous"
            f" (asked: {where})"
        )
    if "without LOCATION" in said:
        return OSError(f"{uri}: the bucket is in another region; set stores.region")
    if isinstance(error, InvalidPathError | ValueError):
        return BadKeyError(f"{uri}: {_bad_key(said)}")
    if status is not None:
        if status == 429 or (status >= 500 and status != 501):
            return TransientError(f"{uri}: {where} answers {status} ({tries} tries)")
        return OSError(f"{uri}: {where} answers {status}")
    if "response body error" in said and "error sending request" not in said:
        return BrokenOffError(f"{uri}: {where} broke off its answer")
    if "kind: Timeout" in said or "kind: Connect" in said or "error sending request" in said:
        return TransientError(f"{uri}: {where} does not answer ({tries} tries)")
    if "body error" in said or "kind: Decode" in said or "kind: Request" in said:
        return BrokenOffError(f"{uri}: {where} broke off its answer")
    first_line, _, _ = said.partition("\n")
    return OSError(f"{uri}: {without_secrets(first_line)}")


def _status(said: str) -> int | None:
    found = re.search(r"status(?: code)?: (\d{3})", said)
    return int(found[1]) if found else None


def is_unknown(error: BaseError) -> bool:
    """True if the client or the store knows no such request, or not with such a header."""
    return isinstance(error, NotSupportedError) or _status(str(error)) == 501


def _bad_key(said: str) -> str:
    found = re.search(r'[Pp]ath "(.*?)"(?=[ :,\n]|$)', said, re.DOTALL)
    which = f"the key {found[1]!r}" if found else "a key"
    return (
        f"{which} has an empty part, '.', '..' or a control character; "
        "rename that object, or name places beside it"
    )
