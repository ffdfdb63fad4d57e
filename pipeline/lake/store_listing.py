"""Listing object stores: keys by the page, in the store's own order, none held for long.

A store knows no folders, so everything below the longest beginning that a pattern names as written
is listed, and what does not fit is passed over; a folder that holds many keys and cannot fit is
jumped over with one request.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import quote

from pyarrow.fs import FileInfo, FileType

from pipeline.lake.entry import Entry, entry_of
from pipeline.lake.object_store import ObjectStore
from pipeline.lake.store_errors import BrokenOffError, pause

_JUMP_AFTER = 1000
"""Keys of a folder that cannot fit, one page of them, after which the rest is jumped over."""

_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True)
class StoreTree:
    """The objects of a bucket; paths begin with its name, which is what "{root}/" stands for."""

    store: ObjectStore
    query: str = ""

    def entry(self, path: str) -> Entry:
        """See pipeline.lake.listing.Folders."""
        return entry_of(self.store.get_file_info([path])[0])

    def uri(self, path: str) -> str:
        """See pipeline.lake.listing.Folders."""
        key = quote(self.store.key(path), safe="/~!$&'()*+,;=:@")
        return f"{self.store.bucket.root}/{key}{self.query}"

    def walk(self, folder: str) -> Iterator[Entry]:
        """Yield every object below a folder whose path has no hidden part (".name")."""
        for info in self._objects(self.store.key(folder), None):
            below = info.path[len(folder) :].strip("/").split("/")
            if not any(name.startswith(".") for name in below):
                yield entry_of(info)

    def expand(self, pattern: str) -> Iterator[Entry]:
        """Yield the objects that a glob matches, each once; ** is any number of folders."""
        folder, parts = self._literal(self.store.key(pattern).split("/"))
        ahead = f"{folder}/" if folder else ""
        first = _literal_beginning(parts[0])
        sorted_keys = self.store.bucket.in_key_order
        deep, passed, last = "**" in parts, 0, ""
        after = _before(ahead + first) if first and sorted_keys else None
        while True:
            for info in self._objects(folder, after):
                key = self.store.key(info.path)
                if sorted_keys and first and _is_past(key, ahead + first):
                    return
                names = key[len(ahead) :].split("/")
                if _fits(tuple(names), parts):
                    yield entry_of(info)
                elif sorted_keys and not deep and len(names) > len(parts):
                    top = posixpath.join(ahead, *names[: len(parts)])
                    passed, last = (passed + 1, top) if top == last else (1, top)
                    if passed >= _JUMP_AFTER:
                        after, passed = f"{top}/{_LAST_CHARACTER}", 0
                        break
            else:
                return

    def _literal(self, parts: list[str]) -> tuple[str, tuple[str, ...]]:
        """Split off the folders that a pattern names as written; one may look like a wildcard."""
        folder = ""
        while len(parts) > 1 and parts[0] != "**":
            deeper = posixpath.join(folder, parts[0])
            is_glob = _literal_beginning(parts[0]) != parts[0]
            if is_glob and self.entry(self.store.path(deeper)).kind is not FileType.Directory:
                break
            folder, parts = deeper, parts[1:]
        return folder, tuple(parts)

    def _objects(self, prefix: str, after: str | None) -> Iterator[FileInfo]:
        """Yield the objects below a key. A listing that breaks off goes on behind its last key."""
        failed = 0
        while True:
            try:
                for page in self.store.pages(prefix, after):
                    failed = 0
                    for info in page:
                        after = self.store.key(info.path)
                        if after != prefix and not _is_folder_mark(info):
                            yield info
                return
            except BrokenOffError:
                failed += 1
                ordered = self.store.bucket.in_key_order or after is None
                if failed >= self.store.bucket.store.attempts or not ordered:
                    raise
                pause(failed)


def _is_folder_mark(info: FileInfo) -> bool:
    """True of the empty objects by which some programs make a folder."""
    return info.size == 0 and not info.extension


def _literal_beginning(name: str) -> str:
    ends = [name.index(character) for character in "*?[" if character in name]
    return name[: min(ends)] if ends else name


def _before(text: str) -> str:
    """Return a key as late as can be that comes before every key that begins with a text."""
    code = ord(text[-1]) - 1
    if code <= ord("/") or 0xD800 <= code < 0xE000:  # no key of the client's ends so
        return text[:-1]
    return text[:-1] + chr(code) + _LAST_CHARACTER


def _is_past(key: str, beginning: str) -> bool:
    return key.encode() > beginning.encode() and not key.startswith(beginning)


def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Return True if a pattern's parts match a path's names; * and ** match none that is hidden."""
    if not parts or not names:
        return not parts and not names
    head, rest = parts[0], parts[1:]
    if head == "**":
        if _fits(names, rest or ("*",)):
            return True
        return len(names) > 1 and not names[0].startswith(".") and _fits(names[1:], parts)
    if head == names[0]:
        return _fits(names[1:], rest)
    hidden = names[0].startswith(".")
    return not hidden and fnmatchcase(names[0], head) and _fits(names[1:], rest)
