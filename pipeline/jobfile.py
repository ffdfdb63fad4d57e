"""Reading a job: the YAML file, then `--set`, then `--input` and `--output`, each over the last."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import JobError
from pipeline.job import Job, holds_credentials
from pipeline.packaged import packaged_file, packaged_names
from pipeline.schema import is_path

Tree = dict[str, Any]
"""Keys and values as YAML gives them, before they are a Job."""


def _always(_: str) -> bool:
    return True


def _is_local(name: str) -> bool:
    return name.startswith(("./", "../", "~/"))


_PATHS: dict[tuple[str, ...], Callable[[str], bool]] = {
    ("input", "paths"): _always,
    ("input", "manifest"): _always,
    ("schema",): is_path,
    ("model", "name"): _is_local,  # otherwise a hub id, which has a slash too
    ("model", "adapter"): _is_local,
    ("output", "uri"): _always,
}
"""Keys whose values may be paths, and when they are."""


def load_job(
    name_or_path: str,
    overrides: Sequence[str] = (),
    inputs: Sequence[str] = (),
    output: str | None = None,
) -> Job:
    """Read a job file, by path or packaged name, with the command line's changes.

    `overrides` are "dotted.key=value", the value in YAML; `inputs` take the place of `input.paths`
    and `input.manifest`, `output` that of `output.uri`. Paths in the file are relative to its
    folder; `output.uri`, and paths on the command line, to the current one.
    Raises JobError, one line naming the file, the key and the mend.
    """
    path = _find(name_or_path)
    changes: Tree = {}
    for override in overrides:
        changes = _merged(changes, _parse_override(override))
    options: Tree = {"input": {"paths": list(inputs), "manifest": None}} if inputs else {}
    if output is not None:
        options["output"] = {"uri": output}
    tree = {"name": path.stem} | _anchored(_read(path), path.parent.absolute())
    tree = _merged(tree, _anchored(_merged(changes, options), Path.cwd()))
    try:
        job = Job.model_validate(tree)
    except ValidationError as error:
        first, *others = error.errors()
        where = "--set" if _holds(changes, first["loc"]) else str(path)
        more = f" (and {len(others)} more)" if others else ""
        raise JobError(f"{where}: {_explain(first)}{more}") from None
    _check_password(job, path)
    return job


def _find(name_or_path: str) -> Path:
    path, names = Path(name_or_path), packaged_names("jobs")
    if name_or_path in names:
        return packaged_file("jobs", name_or_path)
    if path.is_file():
        return path
    near = difflib.get_close_matches(name_or_path, names, n=1)
    mend = f"did you mean {near[0]}?" if near else f"packaged jobs: {', '.join(names) or 'none'}"
    raise JobError(f"{name_or_path}: neither a job file nor a packaged job; {mend}")


def _check_password(job: Job, path: Path) -> None:
    variable = job.input.password_env
    if variable is not None and variable not in os.environ:
        raise JobError(
            f"{path}: input.password_env: there is no environment variable {variable}; export it"
        )


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may appear once, and 2024-01-31 is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the type that yaml declares
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value} appears twice; remove one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise JobError(f"{where}:{line} not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise JobError(f"{where}: not YAML: {str(error).splitlines()[0]}") from None


def _read(path: Path) -> Tree:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise JobError(f"{path}: not text in UTF-8; save it as UTF-8") from None
    tree = _parse_yaml(text, str(path))
    if not isinstance(tree, dict | None):
        raise JobError(f"{path}: not a job file; write keys and values, such as schema: receipt.v1")
    return {key: value for key, value in (tree or {}).items() if value is not None}


def _parse_override(text: str) -> Tree:
    match = re.fullmatch(r"(\w+(?:\.\w+)*)\s*=(.*)", text, re.DOTALL)
    if match is None:
        raise JobError(f"--set {_shown(text)}: write key=value, such as model.dtype=float32")
    value = _parse_yaml(match[2], f"--set {match[1]}")
    if isinstance(value, dict):  # prose with a colon in it
        value = match[2]
    *sections, key = match[1].split(".")
    tree: Tree = {key: value}
    for section in reversed(sections):
        tree = {section: tree}
    return tree


def _merged(tree: Tree, changes: Tree, at: str = "") -> Tree:
    """Return `tree` with `changes` over it, section by section."""
    merged = dict(tree)
    for key, value in changes.items():
        old = merged.get(key)
        if not isinstance(value, dict):
            merged[key] = value
        elif isinstance(old, dict | None):
            merged[key] = _merged(old or {}, value, f"{at}{key}.")
        else:
            raise JobError(f"--set: {at}{key} is a value, not a section; set {at}{key} itself")
    return merged


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
    return _absolute(value, Path.cwd() if at == ("output", "uri") else folder)


def _absolute(path: str, folder: Path) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        return path
    home = Path.home() if path.startswith("~/") else None
    return os.path.normpath(home / path[2:] if home else folder / path)


def _explain(error: ErrorDetails) -> str:
    """Say which key is wrong, how, and the mend."""
    *sections, key = error["loc"] or ("",)
    value, context = f"{_shown(repr(error['input'])):.80}", error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _keys(sections)
            near = difflib.get_close_matches(str(key), known, n=1)
            mend = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            problem = f"unknown key; {mend}"
        case "literal_error":
            problem = f"{value} is not one of {_choices(context['expected'])}"
        case "missing":
            problem = "missing; add it"
        case "string_type":
            problem = f"{value} is not text; quote it"
        case "model_type":
            problem = (
                f"{value} is not a section; write keys below it, such as {_keys(error['loc'])[0]}"
            )
        case "value_error":
            problem = _shown(str(context["error"]))
        case _:
            problem = f"{value}: {error['msg'][:1].lower()}{error['msg'][1:]}"
    return f"{_dotted(error['loc'])}: {problem}" if error["loc"] else problem


def _shown(text: str) -> str:
    return "a URI with credentials" if holds_credentials(text) else text


def _dotted(location: Sequence[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).lstrip(".")


def _choices(expected: str) -> str:
    """Write pydantic's "'auto', True or False" as YAML has it: auto, true, false."""
    choices = re.split(", | or ", expected)
    return ", ".join(c.strip("'") if c.startswith("'") else c.lower() for c in choices)


def _keys(sections: Sequence[str | int]) -> list[str]:
    """Return the keys that the section may have."""
    section: type[BaseModel] = Job
    for name in sections:
        annotation = section.model_fields[str(name)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    return [field.alias or name for name, field in section.model_fields.items()]


def _holds(tree: Tree, location: Sequence[str | int]) -> bool:
    """Return True if the tree, or a value in it, is what the location names."""
    value: Any = tree
    for part in location:
        if not isinstance(value, dict):
            return True
        if part not in value:
            return False
        value = value[part]
    return bool(location)
