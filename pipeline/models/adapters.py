"""LoRA adapters (Hu et al., arXiv:2106.09685) on top of a checkpoint, quantized or not."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError, one_line
from pipeline.models.hub import fetch, fetch_first

_KEY = "model.adapter"
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def pin_adapter(adapter: str) -> str:
    """Return a folder as it is, and a hub id (owner/name, or owner/name@revision) with its commit.

    Raises CheckpointError if there is no such folder, or the hub has none such.
    """
    if _is_folder(adapter):
        if not Path(adapter).expanduser().is_dir():
            raise _missing(adapter)
        return adapter
    name, _, revision = adapter.partition("@")
    commit = fetch_first(_KEY, name, revision or None, _CONFIG).parent.name
    return f"{name}@{commit}"


def adapter_folder(adapter: str) -> Path:
    """Return the folder of an adapter on this machine, fetched if need be.

    Raises
    ------
    CheckpointError
        If there is none, it holds no safetensors, or peft is missing.
    """
    path = Path(adapter).expanduser()
    if adapter.startswith((".", "/", "~")) and not path.is_dir():
        raise _missing(adapter)
    if find_spec("peft") is None:
        raise CheckpointError(f"{_KEY}: needs the peft package; pip install pagelake[adapters]")
    if not path.is_dir():
        name, _, commit = pin_adapter(adapter).partition("@")
        path = fetch(_KEY, name, commit, (_CONFIG, _WEIGHTS))
    if not (path / _WEIGHTS).is_file():  # peft would be content with a pickle, which may run code
        raise CheckpointError(f"{_KEY}: '{adapter}' has no {_WEIGHTS}; save it as such")
    return path


def _missing(adapter: str) -> CheckpointError:
    return CheckpointError(
        f"{_KEY}: there is no folder '{adapter}'; give a folder made by save_pretrained, or a hub "
        "id (owner/name)"
    )


def load_adapter(model: Any, adapter: str, folder: Path) -> None:
    """Put an adapter on a stock model.

    Raises
    ------
    CheckpointError
        If it is broken, or was made for another model.
    """
    try:
        report = model.load_adapter(str(folder), ignore_mismatched_sizes=True)
        if wrong := sorted(report.mismatched_keys):
            raise ValueError(
                f"{len(wrong)} of its weights are of other shapes than the model's, such as "
                f"{wrong[0][0]}; was it made for another one?"
            )
        if missing := sorted(report.missing_keys):
            raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
        if left := sorted(report.unexpected_keys):
            raise ValueError(
                f"{len(left)} of its weights have no place in the model, such as {left[0]}; was it "
                "made for another one?"
            )
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(f"{_KEY}: '{adapter}' does not load: {one_line(error)}") from error


def _is_folder(adapter: str) -> bool:
    return adapter.startswith((".", "/", "~")) or Path(adapter).is_dir()
