"""Fetching files of the Hugging Face hub into its cache, each once a machine.

The cache's own locks keep processes that want the same file from fetching it twice, and what was
fetched in part is gone on with. Where the hub cannot be reached, the cache alone serves. Nothing
that is raised here quotes an address or a header: they may hold a token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.errors import CheckpointError, one_line
from pipeline.models.safetensors_header import StoredTensor

_LOG_IN = "log in (hf auth login, or HF_TOKEN)"
Fetched = TypeVar("Fetched")


def fetch_first(key: str, name: str, revision: str | None, file: str) -> Path:
    """Fetch one file of a branch, tag or commit; its folder in the cache is named by the commit.

    `key` is the job's, for complaints. Raises CheckpointError.
    """
    from huggingface_hub import hf_hub_download

    found = _quietly(
        key,
        name,
        lambda: hf_hub_download(name, file, revision=revision or "main"),
        revision,
    )
    return Path(found)


def fetch(key: str, name: str, commit: str, patterns: Sequence[str], *, anew: bool = False) -> Path:
    """Fetch the files at the top of a repository that fit a pattern; return their folder.

    `anew` fetches what lies in the cache as well. Raises CheckpointError.
    """
    from huggingface_hub import snapshot_download

    found = _quietly(
        key,
        name,
        lambda: snapshot_download(
            name,
            revision=commit,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],  # to the hub's matching, a * takes slashes too
            force_download=anew,
        ),
    )
    return Path(found)


def remote_header(key: str, name: str, commit: str, file: str) -> list[StoredTensor]:
    """Return what a safetensors file on the hub holds, of its header alone.

    Raises CheckpointError.
    """
    from huggingface_hub import HfApi

    header = _quietly(
        key, name, lambda: HfApi().parse_safetensors_file_metadata(name, file, revision=commit)
    )
    return [
        StoredTensor(tensor, str(found.dtype), tuple(found.shape))
        for tensor, found in header.tensors.items()
    ]


def _quietly(
    key: str, name: str, work: Callable[[], Fetched], revision: str | None = None
) -> Fetched:
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # It tells of each try again, with the address.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return work()
    except Exception as error:  # what a network raises is anybody's guess
        raise CheckpointError(f"{key}: '{name}' {_why(error, revision)}") from error


def _why(error: Exception, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"is gated; accept its terms on the hub, and {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision '{revision}' on the hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"is no local folder, and not on the hub or private; check the name, or {_LOG_IN}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "is on the hub and lacks a file that is needed; is it a model of transformers?"
    if isinstance(error, errors.HFValidationError):
        return "is neither a local folder nor a hub id (owner/name)"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"may not be read (the hub answers {status}); {_LOG_IN}"
        return f"could not be fetched (the hub answers {status}); run again later"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "is no local folder, the hub does not answer, and the cache does not have all of it; "
            "check the network and HF_ENDPOINT, then run again to go on"
        )
    if isinstance(error, OSError) and "://" not in str(error):  # a full disk, a short file
        return f"could not be fetched: {one_line(error)}"
    return (
        f"could not be fetched whole ({type(error).__name__}); check the network, then run again "
        "to go on"
    )
