"""Models in object stores: a folder's files, fetched once a machine into a cache under a lock.

::

    {cache}/pagelake/models/{digest of the listing}/     what has come so far, each file whole
    {cache}/pagelake/models/{digest of the listing}.lock

The digest is of names, sizes and modification times, so a folder that is changed is another model.
`{cache}` is `XDG_CACHE_HOME`, or `~/.cache`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pyarrow import fs

from pipeline.errors import CheckpointError, one_line
from pipeline.job import Job
from pipeline.lake.store_errors import ReplacedError, complaint
from pipeline.lake.stores import Stores
from pipeline.models.base import Checkpoint
from pipeline.models.families import resolve

_SETTINGS = (".json", ".jinja", ".model", ".txt", ".py")
_WEIGHTS = ".safetensors"


def is_stored(name: str) -> bool:
    """Return True for a folder in an object store."""
    return "://" in name


def resolve_stored(job: Job) -> Checkpoint:
    """Find a checkpoint in a store, and pin what lies there now. Fetches all but the weights.

    Raises
    ------
    CheckpointError
        If there is none, it cannot be fetched, or no family here reads it.
    RunError
        If its store is away.
    """
    uri, stores = job.model.name, Stores.of(job.stores)
    revision, files = _listed(uri, stores)
    if not any(name.endswith("/config.json") for name, _ in files):
        raise CheckpointError(f"model.name: there is no config.json in '{uri}'; name its folder")
    folder = _fetched(uri, stores, revision, weights=False)
    found = resolve(job.model.model_copy(update={"name": str(folder)}))
    return replace(found, name=uri, location=uri, revision=revision)


def on_this_machine(checkpoint: Checkpoint, job: Job, *, weights: bool) -> Checkpoint:
    """Return a checkpoint with its files in a folder here; others than stored ones as they are.

    Raises
    ------
    CheckpointError
        If they cannot be fetched, or are not those that the run began with.
    RunError
        If their store is away.
    """
    if not is_stored(checkpoint.location):
        return checkpoint
    place = checkpoint.location, Stores.of(job.stores), checkpoint.revision
    return replace(checkpoint, location=str(_fetched(*place, weights=weights)))


def _listed(uri: str, stores: Stores) -> tuple[str, list[tuple[str, int]]]:
    """Return the listing's digest, and the path and size of each file that models have."""
    with _complaints(uri):
        store, path = stores.filesystem(uri.rstrip("/"))
        found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
    wanted = [one for one in found if one.is_file and one.path.endswith((*_SETTINGS, _WEIGHTS))]
    wanted.sort(key=lambda one: one.path)
    digest = hashlib.sha256()
    for one in wanted:
        digest.update(f"{one.base_name}\0{one.size}\0{one.mtime_ns}\0".encode())
    return digest.hexdigest()[:40], [(one.path, one.size) for one in wanted]


def _fetched(uri: str, stores: Stores, revision: str, *, weights: bool) -> Path:
    files = _pinned(uri, stores, revision)
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pagelake" / "models"
    folder = home / revision
    with _complaints(uri):
        folder.mkdir(parents=True, exist_ok=True)
        with (home / f"{revision}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path, size in files:
                final = folder / Path(path).name
                if final.is_file() or (path.endswith(_WEIGHTS) and not weights):
                    continue
                part = final.with_name(f"{final.name}.part")
                try:
                    _fetch(stores.filesystem(uri)[0], path, size, part)
                    _pinned(uri, stores, revision)  # or this may be a file of the next model
                    part.replace(final)
                finally:
                    part.unlink(missing_ok=True)
    return folder


def _pinned(uri: str, stores: Stores, revision: str) -> list[tuple[str, int]]:
    """Return what `_listed` does. Raises CheckpointError if the files are not the pinned ones."""
    now, files = _listed(uri, stores)
    if now != revision:
        raise CheckpointError(_changed(uri))
    return files


def _changed(uri: str) -> str:
    return f"model.name: '{uri}' has changed since the run began; run it again"


def _fetch(store: fs.FileSystem, path: str, size: int, part: Path) -> None:
    with store.open_input_stream(path) as source, part.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 22)
    if part.stat().st_size != size:
        raise OSError(f"{path} came short")


@contextmanager
def _complaints(uri: str) -> Iterator[None]:
    try:
        yield
    except ReplacedError as error:
        raise CheckpointError(_changed(uri)) from error
    except (OSError, ValueError) as error:
        said = f"model.name: '{uri}' cannot be fetched: {one_line(error)}"
        raise complaint(CheckpointError, said, error) from error
