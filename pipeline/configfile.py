"""Reading a settings file: YAML and the command line's changes into a frozen pydantic model.

What is wrong is said in one line that names the file, the key and the mend.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.credentials import holds_credentials
from pipeline.errors import JobError
from pipeline.packaged import packaged_file, packaged_names

Tree = dict[str, Any]
"""Keys and values as YAML gives them, before they are checked."""

_MOST_NODES = 100_000
_PATTERNS = {
    "password_env": "not the name of an environment variable; put one's name here",
    "endpoint": "not an address; write it as http://host:port",
}
"""What is said of a text that does not match its key's pattern."""

Settings = TypeVar("Settings", bound=BaseModel)


def find(name_or_path: str) -> Path:
    """Return the file of a path or packaged name. Raises JobError if there is none."""
    path, names = Path(name_or_path), packaged_names("jobs")
    if name_or_path in names:
        return packaged_file("jobs", name_or_path)
    if path.is_file():
        return path
    near = difflib.get_close_matches(name_or_path, names, n=1)
    mend = f"did you mean {near[0]}?" if near else f"packaged jobs: {', '.join(names) or 'none'}"
    raise JobError(f"{name_or_path}: neither a job file nor a packaged job; {mend}")


def checked(model: type[Settings], tree: Tree, changes: Tree, path: Path) -> Settings:
    """Return the settings that a tree stands for; `changes` are what `--set` put into it.

    Raises JobError.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first, *others = error.errors()
        where = "--set" if _holds(changes, first["loc"]) else str(path)
        more = f" (and {len(others)} more)" if others else ""
        raise JobError(f"{where}: {_explain(model, first)}{more}") from None


def parse_overrides(texts: Iterable[str]) -> Tree:
    """Return what "dotted.key=value" texts set, the values in YAML. Raises JobError."""
    changes: Tree = {}
    for text in texts:
        changes = merged(changes, _parse_override(text))
    return changes


_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, OverflowError)
"""What yaml raises of values that are not of the type they are marked as, such as `!!int x`."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key may appear once, and 2024-01-31 is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the type that yaml declares
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > _MOST_NODES:  # a few lines of aliases may unfold to terabytes
            problem = f"its aliases unfold to over {_MOST_NODES:,} values; write fewer"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return self.construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value} appears twice; remove one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _unfolded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the values that a node stands for, an alias as often as it is named."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            problem = "an alias (*name) stands inside of what it names"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return sizes[id(node)]
    sizes[id(node)] = 0  # while under way
    items = node.value if isinstance(node, yaml.CollectionNode) else ()
    inside = [part for item in items for part in (item if isinstance(item, tuple) else (item,))]
    sizes[id(node)] = 1 + sum(_unfolded(part, sizes) for part in inside)
    return sizes[id(node)]


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise JobError(f"{where}:{line} not YAML: {_shown(str(error.problem))}") from None
    except _NOT_YAML as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise JobError(f"{where}: not YAML: {_shown(first)}") from None


def read(path: Path) -> Tree:
    """Read the file; keys without a value are left out. Raises JobError."""
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
    match = re.fullmatch(r"(\w+(?:\.\w+){0,9})\s*=(.*)", text, re.DOTALL)
    if re.match(r"stores\b", text):  # whose keys are URIs, with dots of their own
        raise JobError(
            "--set: stores cannot be set from the command line; write them in the job file"
        )
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


def merged(tree: Tree, changes: Tree, at: str = "") -> Tree:
    """Return `tree` with `changes` over it, section by section. Raises JobError."""
    result = dict(tree)
    for key, value in changes.items():
        old = result.get(key)
        if not isinstance(value, dict):
            result[key] = value
        elif isinstance(old, dict | None):
            result[key] = merged(old or {}, value, f"{at}{key}.")
        else:
            raise JobError(f"--set: {at}{key} is a value, not a section; set {at}{key} itself")
    return result


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    """Say which key is wrong, how, and the mend."""
    *sections, key = error["loc"] or ("",)
    value, context = f"{_shown(_written(error['input'])):.80}", error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _keys(model, sections)
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
            key = _keys(model, error["loc"])[0]
            problem = f"{value} is not a section; write keys below it, such as {key}"
        case "string_pattern_mismatch":  # the value is not shown: it may be the password itself
            problem = _PATTERNS.get(str(key), "not written as it has to be")
        case "value_error":
            problem = _shown(str(context["error"]))
        case _:
            problem = f"{value}: {error['msg'][:1].lower()}{error['msg'][1:]}"
    return f"{_shown(_dotted(error['loc']))}: {problem}" if error["loc"] else problem


def _written(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # 0xfff..., longer than Python writes in decimal
        return "a number of too many digits"


def _shown(text: str) -> str:
    return "a URI with credentials" if holds_credentials(text) else text


def _dotted(location: Sequence[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).lstrip(".")


def _choices(expected: str) -> str:
    """Write pydantic's "'auto', True or False" as YAML has it: auto, true, false."""
    choices = re.split(", | or ", expected)
    return ", ".join(c.strip("'") if c.startswith("'") else c.lower() for c in choices)


def _keys(model: type[BaseModel], sections: Sequence[str | int]) -> list[str]:
    """Return the keys that the section may have."""
    section = model
    for name in sections:
        if isinstance(name, str) and name in section.model_fields:
            section = _section(section.model_fields[name].annotation) or section
    return [field.alias or name for name, field in section.model_fields.items()]


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, by itself or as the items of a list."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


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
