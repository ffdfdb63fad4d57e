"""What a listing yields."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrow.fs import FileInfo, FileType


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder. `size` is in bytes; -1, and no `modified`, if it is not a file.

    `kind` is Unknown for what is neither: a socket, or a link to a folder (links could go round).
    """

    path: str
    kind: FileType
    size: int = -1
    modified: str = ""


def entry_of(info: FileInfo) -> Entry:
    """Return what a filesystem of pyarrow's says of a path."""
    if info.type is not FileType.File:
        return Entry(info.path, info.type)
    return Entry(info.path, info.type, info.size, modified_text(info))


def modified_text(info: FileInfo) -> str:
    """Return a file's modification time in nanoseconds as text: it tells versions apart."""
    return str(info.mtime_ns) if info.mtime_ns is not None else ""
