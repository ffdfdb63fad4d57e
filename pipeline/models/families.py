"""Which family a checkpoint belongs to, and where its files are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Family
from pipeline.models.checkpoint_files import BUNDLED, BUNDLED_AT, read_object
from pipeline.models.content_hash import content_hash
from pipeline.models.hub import fetch_first

TRAITS_FILE = "pagelake.json"
"""Optional file of a checkpoint, with the optional keys canvas, schemas and compact_json of
`Checkpoint`."""


def _idefics() -> Family:
    from pipeline.models.idefics.family import IdeficsFamily

    return IdeficsFamily()


def _idefics2() -> Family:
    from pipeline.models.idefics2.family import Idefics2Family

    return Idefics2Family()


def _idefics3() -> Family:
    from pipeline.models.idefics3 import Idefics3Family

    return Idefics3Family()


def _fake() -> Family:
    from pipeline.models.fake import FakeFamily

    return FakeFamily()


_FAMILIES: Mapping[str, Callable[[], Family]] = {
    "idefics": _idefics,
    "idefics2": _idefics2,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "fake": _fake,
}


def family_of(checkpoint: Checkpoint) -> Family:
    """Return the family that reads this checkpoint."""
    return _FAMILIES[checkpoint.family]()


def is_bundled(name: str) -> bool:
    """Return True if a checkpoint of that name comes with the package."""
    return Path(name).name == name and (BUNDLED / name / "config.json").is_file()


def resolve(settings: ModelSettings) -> Checkpoint:
    """Find the checkpoint that a job names, and pin its revision.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or no family here reads it.
    """
    if settings.family not in ("auto", *_FAMILIES):
        raise CheckpointError(
            f"model.family: there is no family '{settings.family}'; "
            f"there are {', '.join(name for name in _FAMILIES if name != 'fake')}"
        )
    if settings.family == "fake":
        return Checkpoint(settings.name, "fake", settings.name, revision="fake")
    bundled = is_bundled(settings.name)
    path = BUNDLED / settings.name if bundled else Path(settings.name).expanduser()
    if path.is_dir():
        # Other machines have the bundled one in an install of their own.
        place = f"{BUNDLED_AT}{settings.name}" if bundled else str(path.resolve())
        return _local(settings, path, place)
    if settings.name.startswith((".", "/", "~")) or settings.name.count("/") != 1:
        raise CheckpointError(
            f"model.name: no checkpoint at '{settings.name}'; give a folder made by "
            "save_pretrained, a hub id (owner/name), or 'nano'"
        )
    return _from_hub(settings)


def adapter_revision(adapter: str) -> str:
    """Return what tells versions of an adapter apart: a folder's content hash, else the hub id as
    `pipeline.models.adapters.pin_adapter` returns it, with its commit."""
    path = Path(adapter).expanduser()
    return content_hash(path) if path.is_dir() else adapter


def _local(settings: ModelSettings, path: Path, location: str) -> Checkpoint:
    if settings.revision is not None:
        raise CheckpointError(
            f"model.revision: '{settings.name}' is a local folder and has no revisions; remove it"
        )
    config = read_object(path / "config.json")
    traits = _traits(path / TRAITS_FILE)
    return Checkpoint(
        name=settings.name,
        family=_family_name(settings, config),
        location=location,
        revision=content_hash(path),
        canvas=traits.canvas,
        schemas=traits.schemas,
        compact_json=traits.compact_json,
        remote_code=settings.trust_remote_code,
    )


class _Traits(BaseModel):
    """The contents of `TRAITS_FILE`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    canvas: tuple[PositiveInt, PositiveInt] | None = None
    schemas: tuple[str, ...] | None = None
    compact_json: bool = False


def _traits(path: Path) -> _Traits:
    if not path.is_file():
        return _Traits()
    try:
        return _Traits.model_validate(read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"model.name: {path}: {place}: {first['msg']}") from error


def _from_hub(settings: ModelSettings) -> Checkpoint:
    config = fetch_first("model.name", settings.name, settings.revision, "config.json")
    # The cache's layout is .../snapshots/<commit>/config.json.
    return Checkpoint(
        name=settings.name,
        family=_family_name(settings, read_object(config)),
        location=settings.name,
        revision=config.parent.name,
        remote_code=settings.trust_remote_code,
    )


def _family_name(settings: ModelSettings, config: Mapping[str, Any]) -> str:
    found = str(config.get("model_type", "unknown"))
    if settings.family == "auto" and found not in _FAMILIES:
        raise CheckpointError(
            f"model.name: '{settings.name}' is a '{found}' model; this version reads "
            f"{', '.join(name for name in _FAMILIES if name != 'fake')}"
        )
    if settings.family == "auto":
        return found
    # The config of a model derived from a known one may have a type of its own.
    if _FAMILIES.get(found, _FAMILIES[settings.family]) is not _FAMILIES[settings.family]:
        raise CheckpointError(
            f"model.family: '{settings.name}' is of family {found}, not {settings.family}; "
            "leave model.family out"
        )
    return settings.family
