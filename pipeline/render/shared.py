"""Memory that the parent owns and the render process reaches by path."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from pipeline.records import Image


class SharedFile:
    """A file that another process opens by `path`; it goes when it is closed.

    On Linux it has no name on any disk, so nothing is left behind even by `kill -9`. The path
    works for programs that know nothing of shared memory, such as pdftoppm.
    """

    def __init__(self, name: str) -> None:
        if sys.platform == "linux":
            self._file = os.fdopen(os.memfd_create(name), "r+b")
            self.path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile(prefix=name)  # type: ignore[assignment]  # noqa: SIM115
            self.path = self._file.name

    def write(self, content: bytes) -> None:
        """Replace what the file holds."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(content)
        self._file.flush()

    def grow(self, size: int) -> None:
        """Make the file at least `size` bytes long."""
        if os.fstat(self._file.fileno()).st_size < size:
            os.ftruncate(self._file.fileno(), size)

    def close(self) -> None:
        """Give the memory back."""
        self._file.close()


class Canvas:
    """The pixels of one page, seen by two processes. Each has a `Canvas` on the same path."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("r+b")  # noqa: SIM115
        self._map: mmap.mmap | None = None

    def view(self, height: int, width: int) -> Image:
        """The first height * width * 3 bytes as (height, width, 3), not copied.

        The file must have been grown to hold them, and no earlier view may still be in use.
        """
        size = height * width * 3
        if self._map is None or len(self._map) < size:
            self._unmap()
            self._map = mmap.mmap(self._file.fileno(), 0)
        return np.frombuffer(self._map, np.uint8, size).reshape(height, width, 3)

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def close(self) -> None:
        """Unmap the pixels."""
        self._unmap()
        self._file.close()

    def __enter__(self) -> Canvas:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_grey(image: Image) -> bool:
    """True if R == G == B in every pixel of (height, width, 3).

    Neighbouring bytes are compared over contiguous rows and folded together, which is three times
    faster than comparing the strided channels; the fold's places 2, 5, 8... compare one pixel's
    blue with the next one's red and are left out.
    """
    rows = image.reshape(len(image), -1)
    for top in range(0, len(rows), 64):
        band = rows[top : top + 64]
        differences = np.bitwise_or.reduce(band[:, 1:] ^ band[:, :-1], axis=0)
        if differences[0::3].any() or differences[1::3].any():
            return False
    return True
