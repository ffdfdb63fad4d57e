"""Fetching files of the Hugging Face hub into its cache, each once a machine.

The cache's own locks keep processes that want the same file from fetching it twice, and what was
fetched in part is gone on with. Where the hub cannot be reached, the cache alone serves. Nothing
that is raised here quotes an address or a header: they may hold a token.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import CheckpointError, one_line
from pipeline.models.safetensors_header import StoredTensor

_LOG_IN = "log in (hf auth login, or HF_TOKEN)"


def fetch_first(key: str, name: str, revision: str | None, file: str) -> Path:
    """Fetch one file of a branch, tag or commit; its folder in the cache is named by the commit.

    `key` is the job's, for complaints. Raises CheckpointError.
    """
    from huggingface_hub import hf_hub_download

    with _complaints(key, name, f"revision '{revision}'", file):
        return Path(hf_hub_download(name, file, revision=revision or "main"))


def fetch(key: str, name: str, commit: str, patterns: Sequence[str], *, anew: bool = False) -> Path:
    """Fetch the files at the top of a repository that fit a pattern; return their folder.

    `anew` fetches what lies in the cache as well. Raises CheckpointError.
    """
    from huggingface_hub import snapshot_download

    with _complaints(key, name, f"commit {commit}"):
        folder = snapshot_download(
            name,
            revision=commit,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],  # to the hub's matching, a * takes slashes too
            force_download=anew,
        )
    return Path(folder)


def remote_header(key: str, name: str, commit: str, file: str) -> list[StoredTensor]:
    """Return what a safetensors file on the hub holds, of its header alone.

    Raises CheckpointError.
    """
    from huggingface_hub import HfApi

    with _complaints(key, name, f"commit {commit}", file):
        header = HfApi().parse_safetensors_file_metadata(name, file, revision=commit)
    return [
        StoredTensor(tensor, str(found.dtype), tuple(found.shape))
        for tensor, found in header.tensors.items()
    ]


@contextmanager
def _complaints(key: str, name: str, revision: str, file: str = "such file") -> Iterator[None]:
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # It tells of each try again, with the address.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # what a network raises is anybody's guess
        raise CheckpointError(f"{key}: '{name}' {_why(error, revision, file)}") from error


def _why(error: BaseException, revision: str, file: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            return _why(error.__cause__, revision, file)
        return (
            "is no local folder, the hub does not answer, and the cache does not have all of it; "
            "check the network and HF_ENDPOINT, then run again to go on"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"is gated; accept its terms on the hub, and {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no {revision} on the hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"is no local folder, and not on the hub or private; check the name, or {_LOG_IN}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"has no {file} on the hub"
    if isinstance(error, errors.HFValidationError):
        return "is neither a local folder nor a hub id (owner/name)"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"may not be read (the hub answers {status}); {_LOG_IN}"
        return f"could not be fetched (the hub answers {status}); run again later"
    if isinstance(error, OSError) and "://" not in str(error):  # a full disk, a short file
        return f"could not be fetched: {one_line(error)}"
    return (
        f"could not be fetched whole ({type(error).__name__}); check the network, then run again "
        "to go on"
    )
