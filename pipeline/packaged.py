"""The job files and schemas that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pipeline

Kind = Literal["jobs", "schemas"]

_SUFFIX: dict[Kind, str] = {"jobs": ".yaml", "schemas": ".json"}


def packaged(kind: Kind) -> Path:
    """Return the folder of the packaged job files or schemas; it may not exist."""
    package = Path(pipeline.__file__).parent
    inside = package / kind  # a wheel has them inside the package, a checkout beside it
    return inside if inside.is_dir() else package.parent / kind


def packaged_names(kind: Kind) -> list[str]:
    """Return the names that may be used in place of a path, sorted."""
    return sorted(path.stem for path in packaged(kind).glob(f"*{_SUFFIX[kind]}"))


def packaged_file(kind: Kind, name: str) -> Path:
    """Return the path that a packaged name stands for; it may not exist."""
    return packaged(kind) / f"{name}{_SUFFIX[kind]}"
