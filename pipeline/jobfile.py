"""Reading a job: the YAML file, then `--set`, then `--input` and `--output`, each over the last."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.configfile import Tree, checked, find, merged, parse_overrides, read
from pipeline.credentials import holds_credentials
from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.schema import is_path
from pipeline.store_settings import SCHEMES


def _always(_: str) -> bool:
    return True


def _is_local(name: str) -> bool:
    return name.startswith(("./", "../", "~/"))


def _has_slash(name: str) -> bool:
    """Say whether a table is one of Delta Lake's; a catalog's names have no slash."""
    return "/" in name


_PATHS: dict[tuple[str, ...], Callable[[str], bool]] = {
    ("input", "paths"): _always,
    ("input", "manifest"): _always,
    ("schema",): is_path,
    ("examples", "pages"): _always,
    ("model", "name"): _is_local,  # otherwise a hub id, which has a slash too
    ("model", "adapter"): _is_local,
    ("output", "uri"): _always,
    ("output", "table"): _has_slash,
}
"""Keys whose values may be paths, and when they are."""


def load_job(
    name_or_path: str,
    overrides: Sequence[str] = (),
    inputs: Sequence[str] = (),
    output: str | None = None,
    *,
    elsewhere: bool = False,
) -> Job:
    """Read a job file, by path or packaged name, with the command line's changes.

    `overrides` are "dotted.key=value", the value in YAML; `inputs` take the place of `input.paths`
    and `input.manifest`, `output` that of `output.uri`. Paths in the file are relative to its
    folder; those of `output`, and paths on the command line, to the current one. A job that is to
    run `elsewhere` finds its password in the environment there.
    Raises JobError, one line naming the file, the key and the mend.
    """
    path = find(name_or_path)
    changes = parse_overrides(overrides)
    options: Tree = {"input": {"paths": list(inputs), "manifest": None}} if inputs else {}
    if output is not None:
        options["output"] = {"uri": output}
    file = read(path)
    if "stages" in file or "data" in file:
        raise JobError(f"{path}: this is a training job; run it with pagelake finetune")
    tree = {"name": path.stem} | _anchored(file, path.parent.absolute())
    tree = merged(tree, _anchored(merged(changes, options), Path.cwd()))
    job = checked(Job, tree, changes, path)
    if not elsewhere:
        _check_password(job, path)
    return job


def _check_password(job: Job, path: Path) -> None:
    variable = job.input.password_env
    if variable is not None and variable not in os.environ:
        raise JobError(
            f"{path}: input.password_env: there is no environment variable {variable}; export it"
        )


def _anchored(tree: Tree, folder: Path, at: tuple[str, ...] = ()) -> Tree:
    """Return `tree` with its paths made absolute: the output's from here, others from `folder`."""
    return {key: _anchored_value(value, folder, (*at, key)) for key, value in tree.items()}


def _anchored_value(value: Any, folder: Path, at: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return _anchored(value, folder, at)
    if isinstance(value, list):
        return [_anchored_value(item, folder, at) for item in value]
    if not isinstance(value, str) or not value or at not in _PATHS or not _PATHS[at](value):
        return value
    _refuse_one_slash(value, at)
    return _absolute(value, Path.cwd() if at[0] == "output" else folder)


def _refuse_one_slash(path: str, at: tuple[str, ...]) -> None:
    """Raise JobError of s3:/scans, which would be taken for a folder named "s3:"."""
    found = re.match(r"([a-z0-9]+):/(?!/)", path)
    if found is None or found[1] not in (*SCHEMES, "file", "http", "https"):
        return
    meant = f"{found[1]}://{path[found.end() :]}"
    shown = f"{found[1]}:// with two slashes" if holds_credentials(meant) else meant
    raise JobError(f"{'.'.join(at)}: a URI with one slash; did you mean {shown}?")


def _absolute(path: str, folder: Path) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        return path
    home = Path.home() if path.startswith("~/") else None
    return os.path.normpath(home / path[2:] if home else folder / path)
