"""Where everything lies under an output, on a local disk or any store that pyarrow.fs knows.

::

    URI/documents/{run}-{inputs}-{part}.parquet      one row a document; with
                                                     partition_by, in folders such as state=ok
    URI/pages/{run}-{keys}.parquet                   one row a sample; pages/{run}-{inputs}-{part}
                                                     once compacted
    URI/_pagelake/manifest.json                      what the finished table consists of
    URI/_pagelake/commits/{run}-{keys}.json          one a file of pages, put after the file
    URI/_pagelake/runs/{run}/...                     a run's own papers: plan, metrics
    URI/_pagelake/job.yaml                           the last run's job, in full
    URI/_pagelake/identities/{fingerprint}.json      the settings that rows were made with
    URI/_pagelake/published                          which lake tables have the documents
    URI/_pagelake/lock                               who writes to the output now

Names inside an output are relative ("pages/x.parquet") and end up in commits and manifest, so an
output can be moved. A local file appears whole or not at all: it is written under another name,
flushed to disk and renamed. For an object store it is written to a file of this machine, and put
when it is whole.

A name that is read from a file of the output may be anybody's: `checked_name` keeps it inside.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self, cast

from pyarrow import fs

from pipeline.errors import OutputError, RunError, UserError, one_line
from pipeline.lake.object_store import ObjectStore, Version
from pipeline.lake.store_errors import complaint
from pipeline.lake.stores import Stores, object_store

DOCUMENTS = "documents"
PAGES = "pages"
COMMITS = "_pagelake/commits"
RUNS = "_pagelake/runs"
PAPERS = "_pagelake"
MANIFEST = "_pagelake/manifest.json"
JOB = "_pagelake/job.yaml"
IDENTITIES = "_pagelake/identities"
PUBLISHED = "_pagelake/published"
LOCK = "_pagelake/lock"

UNFINISHED = ".tmp"
"""How the name of a local file ends that is being written, or was when its writer died."""

_IN_MEMORY: Final = 8 << 20  # of a file for a store; what is larger waits on disk


def checked_name(name: str, folder: str) -> str:
    """Return a file's name as it is. Raises ValueError if it does not lie in `folder`."""
    steps = name.removeprefix(f"{folder}/").split("/")
    inside = name.startswith(f"{folder}/") and not {"", ".", ".."}.intersection(steps)
    if not inside or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no file in {folder}/")
    return name


@dataclass(frozen=True, slots=True)
class Layout:
    """An output: `root` is its path inside `filesystem`."""

    uri: str
    filesystem: fs.FileSystem
    root: str
    stores: Stores = Stores()

    @classmethod
    def open(cls, uri: str, stores: Stores = Stores()) -> Self:
        """Resolve a local path or URI. Touches nothing.

        Raises
        ------
        OutputError
            If the URI has a scheme that pyarrow.fs does not know, or no path.
        """
        if "://" not in uri:
            return cls(uri, fs.LocalFileSystem(), str(Path(uri).expanduser().absolute()), stores)
        try:
            filesystem, root = stores.filesystem(uri)
        except (OSError, ValueError) as error:
            raise OutputError(f"output {uri}: {one_line(error)}") from error
        if not root.strip("/"):
            raise OutputError(f"output {uri}: names no folder; choose another output.uri")
        return cls(uri, filesystem, root.rstrip("/"), stores)

    def prepare(self) -> None:
        """Make the folders, and prove that the output can be written by writing.

        Raises
        ------
        OutputError
            If it cannot: read-only, no permission, or a file in the way.
        RunError
            If its store is away.
        """
        probe = f"{COMMITS}/.probe"
        try:
            if object_store(self.filesystem) is None:
                for folder in (DOCUMENTS, PAGES, COMMITS, RUNS, IDENTITIES):
                    self.filesystem.create_dir(self._path(folder), recursive=True)
            self.write_bytes(probe, b"")
            self.delete(probe)
        except OSError as error:
            raise self.not_written(error) from error

    def not_written(self, error: OSError) -> UserError | RunError:
        """Return what to raise when nothing can be written."""
        said = f"output {self.uri}: cannot be written ({one_line(error)})"
        return complaint(OutputError, said, error, "; choose another output.uri")

    def is_output(self) -> bool:
        """Return True if a run has ever written here.

        Raises OutputError if a store does not let us look; RunError if it is away.
        """
        try:
            folders = self.filesystem.get_file_info([self._path(COMMITS), self._path(RUNS)])
        except OSError as error:
            said = f"output {self.uri}: cannot be read ({one_line(error)})"
            raise complaint(OutputError, said, error) from error
        return self.exists(MANIFEST) or any(one.type == fs.FileType.Directory for one in folders)

    def read_bytes(self, name: str) -> bytes:
        """Read a small file. Raises FileNotFoundError if there is none."""
        if (store := object_store(self.filesystem)) is not None:
            return store.read(self._path(name))
        with self.filesystem.open_input_stream(self._path(name)) as stream:
            data: bytes = stream.read()
        return data

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a small file in one atomic step, over an older one if there is one."""
        with self.write(name) as stream:
            stream.write(data)

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to write; it appears whole when the block ends.

        If the block raises, nothing is left of it, and an older file of that name stays.
        """
        final = self.local(name)
        if final is None:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
                yield cast(IO[bytes], spool)
                spool.seek(0)
                self._put(name, cast(IO[bytes], spool))
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        unfinished = final.with_name(f"{final.name}.{uuid.uuid4().hex}{UNFINISHED}")
        try:
            with _named(final):
                with unfinished.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(final)
        finally:
            with suppress(OSError):  # a disk that turned read-only: the first error says so
                unfinished.unlink(missing_ok=True)
        _sync_folder(final.parent)

    def version(self, name: str) -> tuple[bytes, Version]:
        """Read a small file of an object store, and its version.

        Raises FileNotFoundError if there is none; NotImplementedError if it is no object store.
        """
        return self._conditional.version(self._path(name))

    def put_over(self, name: str, data: bytes, version: Version | None) -> None:
        """Write a small file over that version of it only, None being over nothing.

        Raises ChangedError if there is another; NotImplementedError if the place knows no such
        condition.
        """
        self._conditional.put_over(self._path(name), data, version)

    @property
    def _conditional(self) -> ObjectStore:
        store = object_store(self.filesystem)
        if store is None:
            raise NotImplementedError
        return store

    def _put(self, name: str, file: IO[bytes]) -> None:
        if (store := object_store(self.filesystem)) is not None:
            store.put(self._path(name), file)
            return
        try:
            with self.filesystem.open_output_stream(self._path(name)) as stream:
                shutil.copyfileobj(file, stream, 1 << 20)
        except BaseException:
            # Its writer cannot be told to give up, and half a file is worse than none.
            with suppress(OSError):
                self.delete(name)
            raise

    def local(self, name: str) -> Path | None:
        """Return a file's path on this machine's disks, None on a store."""
        if isinstance(self.filesystem, fs.LocalFileSystem):
            return Path(self._path(name))
        return None

    def open_input(self, name: str) -> Any:
        """Open a file for random access, as pyarrow.parquet takes it."""
        return self.filesystem.open_input_file(self._path(name))

    def size(self, name: str) -> int:
        """Return a file's size in bytes. Raises FileNotFoundError if there is none."""
        info = self.filesystem.get_file_info(self._path(name))
        if info.type != fs.FileType.File:
            raise FileNotFoundError(self._path(name))
        size: int = info.size
        return size

    def exists(self, name: str) -> bool:
        """Return True if there is such a file."""
        info = self.filesystem.get_file_info(self._path(name))
        return bool(info.type == fs.FileType.File)

    def list(self, folder: str, *, deep: bool = False) -> list[str]:
        """Return the names of the files in a folder, sorted; none if there is no such folder.

        With `deep`, those in the folders below it too.
        """
        top = self._path(folder)
        selector = fs.FileSelector(top, allow_not_found=True, recursive=deep)
        found = self.filesystem.get_file_info(selector)
        return sorted(f"{folder}{info.path.removeprefix(top)}" for info in found if info.is_file)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files in a folder and the folders below it, and their sizes in bytes."""
        selector = fs.FileSelector(self._path(folder), allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        base = self._path("")
        return {info.path.removeprefix(base): info.size for info in found if info.is_file}

    def delete(self, name: str) -> None:
        """Delete a file; no error if there is none."""
        with suppress(FileNotFoundError):  # somebody else's delete may come between
            if object_store(self.filesystem) is not None or self.exists(name):
                self.filesystem.delete_file(self._path(name))
        self._prune(name)

    def _prune(self, name: str) -> None:
        """Delete the folders of a partition that has lost its last file; a store has none."""
        steps = name.split("/")[:-1]
        while steps[:1] == [DOCUMENTS] and len(steps) > 1:
            folder = self.local("/".join(steps))
            if folder is None:
                return
            with suppress(OSError):  # it is not empty
                folder.rmdir()
            steps.pop()

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file an error of the system is about: those of a write know of none."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
