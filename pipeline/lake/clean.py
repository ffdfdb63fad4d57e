"""Deleting what dead runs left in an output: what no reader, and no run that goes on, looks at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

from pipeline.errors import OutputError
from pipeline.lake.layout import (
    COMMITS,
    DOCUMENTS,
    IDENTITIES,
    LOCK,
    PAGES,
    PAPERS,
    RUNS,
    UNFINISHED,
    Layout,
)
from pipeline.lake.ledger import Ledger, Snapshot
from pipeline.lake.lock import Lock, holder, refuse_if_held
from pipeline.lake.stores import Stores

_KINDS: Final = {
    "unfinished": "files cut short",
    "pages": "files of pages, replaced or never committed",
    "documents": "files of documents, replaced or never published",
    "commits": "commits, folded in or without their file",
    "papers": "lists of work to do",
    "identities": "settings of rows that are gone",
    "lock": "lock of a dead run",
}
_PAPERS = ("/documents.parquet", "/listed.parquet", "/shards.parquet")
_FOLDERS = {PAGES: "pages", DOCUMENTS: "documents", COMMITS: "commits"}


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What dead runs left: the size in bytes of each file, by kind (see `_KINDS`) and name."""

    output: str
    files: Mapping[str, Mapping[str, int]]
    deleted: bool

    def to_json(self) -> str:
        """Return one JSON object: by kind how many files, their bytes and their names."""
        kinds = {
            kind: {"files": len(files), "bytes": sum(files.values()), "names": sorted(files)}
            for kind, files in self.files.items()
        }
        return json.dumps({"output": self.output, "deleted": self.deleted, "kinds": kinds})

    def text(self) -> str:
        """Return a line for each kind, for people."""
        if not self.files:
            return "nothing to delete"
        lines = [
            _line(len(files), sum(files.values()), _KINDS[kind])
            for kind, files in self.files.items()
        ]
        sizes = [size for files in self.files.values() for size in files.values()]
        return "\n".join([*lines, _line(len(sizes), sum(sizes), self._done())])

    def _done(self) -> str:
        return "in all, deleted" if self.deleted else "in all; nothing is deleted in a dry run"


def clean(uri: str, stores: Stores = Stores(), *, dry_run: bool = False) -> Leftovers:
    """Find the leftovers of an output's dead runs and delete them, unless it is a `dry_run`.

    Files of the manifest, commits not folded in yet, plans and metrics stay: a run that was stopped
    goes on as if nothing had been cleaned.

    Raises
    ------
    OutputError
        If there is no output, a run is writing to it, or its manifest or a commit is damaged.
    """
    layout = Layout.open(uri, stores)
    if not layout.is_output():
        raise OutputError(f"output {uri}: no run has written here; name a job's output.uri")
    refuse_if_held(layout)
    lock_is_left = holder(layout) is not None
    with nullcontext() if dry_run else Lock(layout, "clean"):
        # Sizes first: a file that is new since then is in no list of what to delete.
        sizes = {
            name: size
            for folder in (PAGES, DOCUMENTS, PAPERS)
            for name, size in layout.sizes(folder).items()
        }
        found: dict[str, dict[str, int]] = {}
        for name, kind in sorted(_left(Ledger(layout).snapshot(), sizes).items()):
            found.setdefault(kind, {})[name] = sizes[name]
        if not dry_run:
            for name in [name for files in found.values() for name in files]:
                layout.delete(name)
    if lock_is_left:  # taken over and given back by now
        found["lock"] = {LOCK: sizes.get(LOCK, 0)}
    return Leftovers(uri, {kind: found[kind] for kind in _KINDS if kind in found}, not dry_run)


def _left(snapshot: Snapshot, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the names of files to delete, each with its kind."""
    used = {one.fingerprint for one in snapshot.unfolded()}
    used |= set() if snapshot.manifest is None else {snapshot.manifest.fingerprint}
    identities = {f"{IDENTITIES}/{fingerprint}.json" for fingerprint in used}
    left = {name: kind for name, kind in _orphans(snapshot) if name in sizes}
    for name in sizes:
        if name.endswith(UNFINISHED):
            left[name] = "unfinished"
        elif name.startswith(f"{RUNS}/") and name.endswith(_PAPERS):
            left[name] = "papers"
        elif name.startswith(f"{IDENTITIES}/") and name not in identities:
            left[name] = "identities"
    return left


def _orphans(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    for name in snapshot.orphans():
        yield name, next(kind for folder, kind in _FOLDERS.items() if name.startswith(f"{folder}/"))


def _line(files: int, n_bytes: int, what: str) -> str:
    return f"{files:>7,}  {n_bytes / 1e6:>10,.3f} MB  {what}"
