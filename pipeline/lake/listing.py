"""Listing input files: local folders and what else pyarrow.fs knows, one folder at a time.

Entries come sorted by name within a folder, and hidden ones (".name") are left out, so that a
listing is the same on every machine and only one folder's names are ever held. Object stores list
themselves, see pipeline.lake.store_listing.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, unquote_to_bytes

from pyarrow.fs import FileSelector, FileSystem, FileType

from pipeline.lake.entry import Entry, entry_of
from pipeline.lake.store_listing import StoreTree
from pipeline.lake.stores import Stores, object_store
from pipeline.store_settings import Store


class Folders(Protocol):
    """Files under "/"-separated paths, in folders that are listed one by one."""

    def entry(self, path: str) -> Entry:
        """Look at one path; kind is NotFound if there is nothing, or nothing one may see."""

    def children(self, folder: str) -> Iterator[Entry]:
        """Yield what is in a folder, sorted by name. Raises OSError if it cannot be listed."""

    def uri(self, path: str) -> str:
        """Return what a Document of this path is called in the tables."""


Tree = Folders | StoreTree


class LocalTree:
    """This machine's files, by absolute path."""

    def entry(self, path: str) -> Entry:
        """See Folders."""
        try:
            status = Path(path).stat()
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return Entry(path, FileType.NotFound)
        if stat.S_ISREG(status.st_mode):
            return Entry(path, FileType.File, status.st_size, str(status.st_mtime_ns))
        return Entry(path, FileType.Directory if stat.S_ISDIR(status.st_mode) else FileType.Unknown)

    def children(self, folder: str) -> Iterator[Entry]:
        """See Folders."""
        with os.scandir(folder) as entries:
            names = sorted((item.name, item.is_symlink()) for item in entries)
        for name, is_link in names:
            if not name.startswith("."):
                entry = self.entry(posixpath.join(folder, name))
                if is_link and entry.kind is FileType.Directory:
                    entry = Entry(entry.path, FileType.Unknown)
                yield entry

    def uri(self, path: str) -> str:
        """Return the path itself, or a file:// URI if it is not Unicode: tables hold text only."""
        try:
            path.encode()
        except UnicodeEncodeError:
            return "file://" + quote(os.fsencode(path))
        return path


@dataclass(frozen=True)
class RemoteTree:
    """Another filesystem's files; paths begin at `base`, which is what "{root}/" stands for."""

    filesystem: FileSystem
    base: str
    root: str
    query: str = ""

    def entry(self, path: str) -> Entry:
        """See Folders."""
        return entry_of(self.filesystem.get_file_info(path))

    def children(self, folder: str) -> Iterator[Entry]:
        """See Folders."""
        found = self.filesystem.get_file_info(FileSelector(folder))
        for info in sorted(found, key=lambda info: str(info.path)):
            if not info.base_name.startswith("."):
                yield entry_of(info)

    def uri(self, path: str) -> str:
        """See Folders."""
        key = quote(path.removeprefix(self.base).lstrip("/"), safe="/~!$&'()*+,;=:@")
        return f"{self.root}/{key}{self.query}"


def locate(name: str, tree: Tree, folder: str, stores: Stores = Stores()) -> tuple[Tree, str]:
    """Return the tree that a path or URI lies in, and its path there.

    A relative path is taken from `folder` in `tree`. Raises ValueError if the URI is of no known
    kind; OSError if its store cannot be reached.
    """
    if name.startswith("file://"):
        path = os.fsdecode(unquote_to_bytes(name.removeprefix("file://")))
        return LocalTree(), posixpath.normpath("/" + path.lstrip("/"))
    if match := re.fullmatch(r"([A-Za-z][\w+.-]*://[^/?]*)(.*?)(\?\w+=[^/]*)?", name, re.DOTALL):
        root, key, query = match.groups("")
        remote, base = _remote_tree(root, query, stores.store(name))
        return remote, posixpath.join(base, unquote(key).strip("/"))
    if name.startswith("/"):
        return LocalTree(), posixpath.normpath(name)
    return tree, posixpath.normpath(posixpath.join(folder, name))


@cache
def _remote_tree(root: str, query: str, store: Store) -> tuple[Tree, str]:
    filesystem, base = Stores((("", store),)).filesystem(f"{root}/{query}")
    if (bucket := object_store(filesystem)) is not None:
        return StoreTree(bucket, query), base
    return RemoteTree(filesystem, base, root, query), base


def walk(tree: Tree, folder: str) -> Iterator[Entry]:
    """Yield every entry below a folder that is not itself a folder, depth first."""
    return tree.walk(folder) if isinstance(tree, StoreTree) else _walk(tree, folder)


def _walk(tree: Folders, folder: str) -> Iterator[Entry]:
    pending = [tree.children(folder)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif entry.kind is FileType.Directory:
            pending.append(tree.children(entry.path))
        else:
            yield entry


def is_glob(path: str) -> bool:
    """Return True if the path has a wildcard: * ? or [."""
    return any(character in path for character in "*?[")


def expand(tree: Tree, pattern: str) -> Iterator[Entry]:
    """Yield the files that an absolute glob matches; ** stands for any number of folders.

    The same file may come twice if the pattern holds ** twice.
    """
    if isinstance(tree, StoreTree):
        return tree.expand(pattern)
    top, *parts = re.split("/(?=.)", pattern)
    return _matches(tree, top or "/", tuple(parts)) if parts else iter(())


def _matches(tree: Folders, folder: str, parts: tuple[str, ...]) -> Iterator[Entry]:
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _matches(tree, folder, rest or ("*",))
        for entry in tree.children(folder):
            if entry.kind is FileType.Directory:
                yield from _matches(tree, entry.path, parts)
        return
    # A folder may be called "scans [2024]": a part that is there as written is no wildcard.
    named = tree.entry(posixpath.join(folder, head)) if rest or not is_glob(head) else None
    if named is None or (is_glob(head) and named.kind is not FileType.Directory):
        found = (e for e in tree.children(folder) if fnmatchcase(posixpath.basename(e.path), head))
    else:
        found = (e for e in [named] if e.kind is not FileType.NotFound)
    for entry in found:
        if rest and entry.kind is FileType.Directory:
            yield from _matches(tree, entry.path, rest)
        elif not rest and entry.kind not in (FileType.Directory, FileType.Unknown):
            yield entry
