"""The commit log and the manifest: which files an output's tables consist of.

Data goes first; the small JSON file put after it is the commit, and readers trust committed files
only. A finished run folds the commits into the manifest, in one atomic swap, and then deletes what
the manifest no longer needs; a crash in between leaves files that `Ledger.orphans` lists and that
no reader looks at. Once those are gone, the manifest is put again without the list of what it
folded: that list is of use only while a folded commit may still lie there. None of this needs a
lock.

`_pagelake/commits/{name}.json`, one for each file of pages::

    {"run_id", "fingerprint", "name", "file", "n_rows", "states": {state: pages},
     "failures": {failure kind: pages}, "written_at": ISO 8601 in UTC}

`_pagelake/manifest.json`, the finished table::

    {"format_version": 1, "provenance": {of the run that finished}, "schema": {JSON Schema},
     "runs": [run ids whose rows are in it], "pages": [files, oldest rows first],
     "documents": [files], "plans": [files], "counts": {"pages": {state: rows},
     "documents": {state: rows}, "failures": {failure kind: documents}},
     "finished_at": ISO 8601 in UTC, "folded": {commit name: its written_at}}

A commit that is put again after it was folded has another `written_at`, and counts as new.

What these files say is not believed: their fields are checked, and names must lie where such files
lie, before any of it is read or deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, TypeAdapter, ValidationError

from pipeline.errors import OutputError, one_line
from pipeline.lake.layout import COMMITS, DOCUMENTS, MANIFEST, PAGES, RUNS, Layout, checked_name
from pipeline.records import Provenance

FORMAT_VERSION = 1

_READERS = 16

_PagesFile = Annotated[str, AfterValidator(partial(checked_name, folder=PAGES))]
_DocumentsFile = Annotated[str, AfterValidator(partial(checked_name, folder=DOCUMENTS))]
_RunsFile = Annotated[str, AfterValidator(partial(checked_name, folder=RUNS))]


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed file of pages. `states` and `failures` count its rows' pages."""

    run_id: str
    fingerprint: str
    name: str
    file: _PagesFile
    n_rows: int
    states: Mapping[str, int]
    failures: Mapping[str, int]
    written_at: AwareDatetime

    def to_json(self) -> str:
        """Return the commit's JSON."""
        return json.dumps(asdict(self) | {"written_at": self.written_at.isoformat()}, indent=1)

    @staticmethod
    def from_json(text: bytes, path: str) -> Commit:
        """Read what `to_json` wrote; `path`, where it lies, is for the message.

        Raises
        ------
        OutputError
            If it is damaged, names a file outside of `pages`, or lies under another name.
        """
        try:
            found = _COMMIT.validate_json(text, strict=True)
            if not path.endswith(f"/{_commit_file(found.name)}"):
                raise ValueError(f"it is the commit {found.name!r}")
        except ValueError as error:
            raise OutputError(
                f"output: {path} is damaged ({_what(error)}); delete it, and run again: its pages "
                "are done again"
            ) from error
        return found


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the finished tables: by state, documents by failure kind, answered pages by looks.

    The latter tell adaptive splitting's work: "1" looked at whole, "2" a second time, split.
    """

    pages: Mapping[str, int] = field(default_factory=dict)
    documents: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    looks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the finished tables consist of; file names are relative to the output."""

    provenance: Provenance
    schema: Mapping[str, Any]
    runs: tuple[str, ...]
    pages: tuple[_PagesFile, ...]
    documents: tuple[_DocumentsFile, ...]
    plans: tuple[_RunsFile, ...]
    counts: Counts
    finished_at: AwareDatetime
    folded: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """The run that finished."""
        return self.provenance.run_id

    @property
    def fingerprint(self) -> str:
        """The fingerprint of every row of the tables."""
        return self.provenance.fingerprint

    def to_json(self) -> str:
        """Return the manifest's JSON."""
        fields = asdict(self) | {"finished_at": self.finished_at.isoformat()}
        return json.dumps({"format_version": FORMAT_VERSION} | fields, indent=1)

    @staticmethod
    def from_json(text: bytes, path: str) -> Manifest:
        """Read what `to_json` wrote; `path`, where it lies, is for the message.

        Raises
        ------
        OutputError
            If it is damaged, names files outside of their folders, or has a format that this
            version of pagelake does not know.
        """
        try:
            version = _FORMAT.validate_json(text).format_version
            if version == FORMAT_VERSION:
                return _MANIFEST.validate_json(text, strict=True)
        except ValueError as error:
            raise OutputError(
                f"output: {path} is damaged ({_what(error)}); put a copy back, or delete it and "
                "run again: all pages are done again"
            ) from error
        raise OutputError(
            f"output: {path} has format {version}, and this pagelake reads format "
            f"{FORMAT_VERSION}; use the pagelake that wrote it, or another output.uri"
        )


@dataclass(frozen=True, slots=True)
class _Format:
    format_version: int


_COMMIT = TypeAdapter(Commit)
_MANIFEST = TypeAdapter(Manifest)
_FORMAT = TypeAdapter(_Format)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An output as it was found at one time.

    `commits` are those whose file is there, folded in or not, oldest first. A commit without its
    file is as if it had never been put: its pages are done again. `files` are the names of all
    files of commits, pages and documents.
    """

    manifest: Manifest | None
    commits: tuple[Commit, ...]
    files: tuple[str, ...]

    def unfolded(self) -> list[Commit]:
        """Return the commits that the manifest has not folded in, oldest first."""
        folded = {} if self.manifest is None else self.manifest.folded
        return [one for one in self.commits if folded.get(one.name) != one.written_at.isoformat()]

    def page_files(self, fingerprint: str | None = None) -> list[str]:
        """Return the live files of pages, oldest rows first; with a fingerprint, its files only."""
        files: list[str] = []
        if self.manifest is not None and fingerprint in (None, self.manifest.fingerprint):
            files.extend(self.manifest.pages)
        files += [one.file for one in self.unfolded() if fingerprint in (None, one.fingerprint)]
        return list(dict.fromkeys(files))

    def orphans(self) -> list[str]:
        """Return files that no reader looks at: superseded, folded in, or never committed.

        A file that a running task has put and not yet committed is among them, and a commit
        without its file.
        """
        live = {*self.page_files(), *(_commit_file(one.name) for one in self.unfolded())}
        live.update(() if self.manifest is None else self.manifest.documents)
        return [name for name in self.files if name not in live]


class Ledger:
    """Reads and writes an output's commits and manifest. Holds nothing but the layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def commit(self, commit: Commit) -> None:
        """Make a file of pages visible. The file must be in place."""
        self.layout.write_bytes(_commit_file(commit.name), commit.to_json().encode())

    def snapshot(self) -> Snapshot:
        """Read the commits, the manifest and the names of the files, as they are at one time."""
        # A run that finishes forgets the commits that it folded in and deleted. Who has listed them
        # before sees another manifest after, and looks again.
        before = self.manifest()
        # Commits before files: a commit's file is put first, so a missing one is missing for good.
        # Then the manifest: a commit whose file a sweep deletes in between is folded into it.
        listed = self.layout.list(COMMITS)
        names = [name for name in listed if name.endswith(".json")]
        with ThreadPoolExecutor(_READERS) as readers:
            texts = list(readers.map(self._read, names))
        commits = [
            Commit.from_json(text, self._path(name))
            for name, text in zip(names, texts, strict=True)
            if text is not None
        ]
        files = (*listed, *self.layout.list(PAGES), *self.layout.list(DOCUMENTS, deep=True))
        present = set(files)
        found = Snapshot(
            manifest=self.manifest(),
            commits=tuple(
                sorted(
                    (commit for commit in commits if commit.file in present),
                    key=lambda commit: (commit.written_at, commit.name),
                )
            ),
            files=files,
        )
        return found if found.manifest == before else self.snapshot()

    def commits(self) -> list[Commit]:
        """Return the commits that the manifest has not folded in, oldest first."""
        return self.snapshot().unfolded()

    def manifest(self) -> Manifest | None:
        """Return the manifest, None before the first run has finished."""
        text = self._read(MANIFEST)
        return None if text is None else Manifest.from_json(text, self._path(MANIFEST))

    def page_files(self, fingerprint: str | None = None) -> list[str]:
        """Return the live files of pages, oldest rows first; with a fingerprint, its files only."""
        return self.snapshot().page_files(fingerprint)

    def document_files(self) -> list[str]:
        """Return the files of documents of the last finished run."""
        return [] if (found := self.manifest()) is None else list(found.documents)

    def publish(self, manifest: Manifest) -> None:
        """Swap the manifest: readers see the old tables before, and the new ones after."""
        self.layout.write_bytes(MANIFEST, manifest.to_json().encode())

    def orphans(self) -> list[str]:
        """Return files that no reader looks at, see `Snapshot.orphans`."""
        return self.snapshot().orphans()

    def sweep(self, snapshot: Snapshot | None = None) -> None:
        """Delete the orphans of a snapshot, by default of one taken now; live files stay.

        Sweep only while no other run writes to the output.
        """
        for name in (snapshot or self.snapshot()).orphans():
            self.layout.delete(name)

    def _path(self, name: str) -> str:
        return f"{self.layout.uri}/{name}"

    def _read(self, name: str) -> bytes | None:
        try:
            return self.layout.read_bytes(name)
        except FileNotFoundError:
            return None


def _commit_file(name: str) -> str:
    return f"{COMMITS}/{name}.json"


def _what(error: ValueError) -> str:
    """Say in a few words what is wrong, and where."""
    if not isinstance(error, ValidationError):
        return one_line(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    complaint = one_line(ValueError(first["msg"].removeprefix("Value error, ")))
    return f"{place}: {complaint}" if place else complaint
