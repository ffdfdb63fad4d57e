"""Where a schema comes from, and the making of one that is safe to use."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import SchemaError
from pipeline.packaged import packaged_file, packaged_names
from pipeline.schema.check import check, hoisted
from pipeline.schema.pydantic_model import document_of


@dataclass(frozen=True)
class Schema:
    """A checked schema.

    `id` names it in the tables, such as "receipt.v1". `text` is `document` as compact JSON in the
    document's own key order, and `sha256` is the hex digest of `text` in UTF-8.
    """

    id: str
    sha256: str
    text: str = field(repr=False, compare=False)
    document: Mapping[str, Any] = field(repr=False, compare=False)


def is_path(ref: str) -> bool:
    """Return True if the reference is a file path, not a packaged name or "module:Model"."""
    return not _is_model(ref) and ("/" in ref or ref.endswith(".json"))


def _is_model(ref: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", ref) is not None


def load_schema(ref: str, base: Path | None = None) -> Schema:
    """Load a schema by packaged name, by path (relative to `base`), or as "module:Model".

    Raises SchemaError, naming the place and the mend, if there is none or it cannot be used.
    """
    if _is_model(ref):
        return make_schema(document_of(ref), name=re.split("[:.]", ref)[-1], where=ref)
    path = (base or Path()) / ref if is_path(ref) else packaged_file("schemas", ref)
    try:
        text = path.read_text("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise SchemaError(_missing(ref, path)) from None
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{path}: not JSON ({error}); mend the file") from None
    return make_schema(document, name=path.stem, where=str(path))


def make_schema(document: Any, name: str, where: str) -> Schema:
    """Check a JSON Schema document and freeze it.

    `name` is the id if the document has no "$id"; `where` is what errors call the document.
    Raises SchemaError.
    """
    try:
        check(document, where)
        document = hoisted(document)
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
    except ValueError:  # a number such as 1e999, or half of a surrogate pair
        raise SchemaError(f"{where}: has a number or character that JSON cannot hold") from None
    except RecursionError:
        raise SchemaError(f"{where}: nested too deeply; flatten it") from None
    last = document.get("$id", name).rstrip("/#").rpartition("/")[2].removesuffix(".json")
    return Schema(re.sub(r"[^A-Za-z0-9._-]+", "-", last) or "schema", digest, text, document)


def _missing(ref: str, path: Path) -> str:
    if is_path(ref):
        return f"schema {ref}: no such file: {path.absolute()}"
    names = packaged_names("schemas")
    near = difflib.get_close_matches(ref, names, n=1)
    mend = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
    return f"schema {ref}: no packaged schema has this name; {mend} (a path starts with ./)"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} appears twice")
    return mapping


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
