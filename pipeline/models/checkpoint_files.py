"""Where a checkpoint's files are on this machine: its folder, or the hub's cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError, one_line
from pipeline.models.base import Checkpoint
from pipeline.models.content_hash import content_hash
from pipeline.models.hub import fetch, remote_header
from pipeline.models.safetensors_header import BrokenFile, StoredTensor, read_header

BUNDLED = Path(__file__).parent
"""Checkpoints shipped inside the package are folders here, loaded by their bare name."""

BUNDLED_AT = "bundled:"
"""How the `location` of a bundled checkpoint begins: each machine has it where its package lies."""

_SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt")
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def is_on_hub(checkpoint: Checkpoint) -> bool:
    """Return True if the checkpoint is the hub's, and not in a folder of this machine."""
    return _own_folder(checkpoint) is None


def _own_folder(checkpoint: Checkpoint) -> Path | None:
    location = checkpoint.location
    if location.startswith(BUNDLED_AT):
        return BUNDLED / location.removeprefix(BUNDLED_AT)
    return Path(location) if Path(location).is_absolute() else None


def settings_folder(checkpoint: Checkpoint) -> Path:
    """Return a folder with all of a checkpoint but its weights. Raises CheckpointError."""
    if (folder := _own_folder(checkpoint)) is not None:
        return folder
    code = ("*.py",) if checkpoint.remote_code else ()
    return fetch("model.name", checkpoint.location, checkpoint.revision, (*_SETTINGS, *code))


def weights_folder(checkpoint: Checkpoint) -> Path:
    """Return a folder with the whole checkpoint, the weights in safetensors only.

    What lies in the hub's cache and is not whole is fetched again. Raises CheckpointError.
    """
    folder = settings_folder(checkpoint)
    if checkpoint.location.startswith(BUNDLED_AT) and content_hash(folder) != checkpoint.revision:
        raise CheckpointError(
            f"model.name: this machine's '{checkpoint.name}' is not the one that the run began "
            "with; install the same pagelake on all machines"
        )
    if is_on_hub(checkpoint):
        files = weight_files(checkpoint, folder)
        place = ("model.name", checkpoint.location, checkpoint.revision)
        fetch(*place, files)
        if broken := [file for file in files if _is_broken(folder / file)]:
            fetch(*place, broken, anew=True)
    return folder


def stored_tensors(checkpoint: Checkpoint, folder: Path) -> list[StoredTensor]:
    """Return what the weights' files hold, of their headers: on this machine, or else on the hub.

    Raises
    ------
    CheckpointError
        If there are none, or they are not whole.
    """
    try:
        return [
            tensor
            for file in weight_files(checkpoint, folder)
            for tensor in _header(checkpoint, folder / file)
        ]
    except (BrokenFile, OSError) as error:
        raise _does_not_load(checkpoint, one_line(error)) from error


def has_weights(checkpoint: Checkpoint, folder: Path) -> bool:
    """Return True if all files of the weights are on this machine."""
    return all((folder / file).is_file() for file in weight_files(checkpoint, folder))


def weight_files(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """Return the names of the weights' files, as the index has them where there are several.

    Raises CheckpointError if the index cannot be used.
    """
    if (folder / _WHOLE).is_file() or not (folder / _INDEX).is_file():
        return [_WHOLE]
    try:
        named = set(
            json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        )
        if not named or any(Path(file).name != file for file in named):
            raise ValueError("it names no files, or files of other folders")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _does_not_load(checkpoint, f"{_INDEX}: {one_line(error)}") from error
    return sorted(named)


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return config.json. Raises CheckpointError if it is no JSON object."""
    return read_object(folder / "config.json")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CheckpointError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"model.name: cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"model.name: {path} is not a JSON object")
    return value


def _header(checkpoint: Checkpoint, file: Path) -> list[StoredTensor]:
    if file.is_file():
        return read_header(file)
    if is_on_hub(checkpoint):
        return remote_header("model.name", checkpoint.location, checkpoint.revision, file.name)
    raise BrokenFile(f"it has no {file.name}; weights are read from safetensors files only")


def _is_broken(file: Path) -> bool:
    try:
        read_header(file)
    except BrokenFile:
        return True
    except OSError:  # not there: for the loader's own words
        return False
    return False


def _does_not_load(checkpoint: Checkpoint, reason: str) -> CheckpointError:
    return CheckpointError(f"model.name: '{checkpoint.name}' does not load: {reason}")
