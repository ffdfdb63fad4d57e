"""PDF through poppler's pdfinfo and pdftoppm, by way of pdf2image.

The programs are held to the address space and the system calls of this process. Their time is
watched by the parent, which kills all of them. The password of a document that asks
for one shows in the system's list of processes meanwhile.
"""

from __future__ import annotations

import numpy as np
from pdf2image import convert_from_path, pdfinfo_from_path
from pdf2image.exceptions import PDFPageCountError
from PIL import Image as Pillow

from pipeline.errors import ItemError
from pipeline.records import FailureKind, Image


class PopplerDocument:
    """A PDF that poppler alone reads: no forms, no text layer.

    Raises `ItemError`: encrypted, unreadable, empty.
    """

    scalable = True
    has_forms = False

    def __init__(self, path: str, password: str | None) -> None:
        self._path = path
        self._password: str | None = None  # until the document asks for one
        self._measured: tuple[int, tuple[float, float, int]] | None = None
        try:
            found = self._look()
        except ItemError as error:
            if error.kind is not FailureKind.ENCRYPTED or password is None:
                raise
            self._password = password
            found = self._look()
        self.n_pages = int(found["Pages"])
        if self.n_pages < 1:
            raise ItemError(FailureKind.EMPTY, "the PDF has no page")

    def size(self, number: int) -> tuple[float, float]:
        """(width, height) in points as displayed: cropped and rotated."""
        width, height, rotation = self._measure(number)
        return (height, width) if rotation in (90, 270) else (width, height)

    def draw(self, number: int, image: Image) -> int:
        """Draw page `number` (from 1) onto all of `image` (height, width, 3); its rotation.

        Raises:
            ItemError: render_crash if poppler drew nothing.
        """
        draw_page(self._path, self._password, number, image)
        return self._measure(number)[2]

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _measure(self, number: int) -> tuple[float, float, int]:
        """(width, height) in points before the page's rotation, and that in degrees clockwise."""
        if self._measured is None or self._measured[0] != number:
            self._measured = number, self._ask_size(number)
        return self._measured[1]

    def _ask_size(self, number: int) -> tuple[float, float, int]:
        found = self._look(number)
        of_page = {key.split()[-1]: value for key, value in found.items() if key[:5] == "Page "}
        try:
            width, _, height = of_page["size"].split()[:3]
            return float(width), float(height), int(of_page["rot"]) % 360
        except (KeyError, ValueError):
            message = f"poppler cannot tell the size of page {number}"
            raise ItemError(FailureKind.UNREADABLE, message) from None

    def _look(self, number: int | None = None) -> dict[str, str]:
        try:
            found: dict[str, str] = pdfinfo_from_path(
                self._path,
                userpw=self._password,  # type: ignore[arg-type]  # None is its default
                ownerpw=self._password,  # type: ignore[arg-type]
                first_page=number,  # type: ignore[arg-type]
                last_page=number,  # type: ignore[arg-type]
            )
        except PDFPageCountError as error:
            if "Incorrect password" in str(error):
                message = "the PDF is encrypted and no password given opens it"
                raise ItemError(FailureKind.ENCRYPTED, message) from None
            message = "poppler cannot read the file as a PDF"
            raise ItemError(FailureKind.UNREADABLE, message) from None
        return found


def draw_page(path: str, password: str | None, number: int, image: Image) -> None:
    """Draw page `number` (from 1) of the PDF at `path` onto all of `image` (height, width, 3).

    Raises:
        ItemError: render_crash if poppler drew nothing.
    """
    height, width, _ = image.shape
    # Some releases of poppler take the size as that of the page before its rotation.
    for size in ((width, height), (height, width)):
        drawing = _draw(path, password, number, size)
        if drawing.size == (width, height):
            image[:] = np.asarray(drawing.convert("RGB"))
            return
    raise ItemError(FailureKind.RENDER_CRASH, f"poppler did not draw {width} x {height} pixels")


def _draw(path: str, password: str | None, number: int, size: tuple[int, int]) -> Pillow.Image:
    drawings = convert_from_path(
        path,
        first_page=number,
        last_page=number,
        size=size,
        use_cropbox=True,
        userpw=password,  # type: ignore[arg-type]  # None is its default
        ownerpw=password,  # type: ignore[arg-type]
    )
    if not drawings:
        raise ItemError(FailureKind.RENDER_CRASH, "poppler drew nothing")
    return drawings[0]
