"""PDF pages through poppler's pdftoppm, by way of pdf2image."""

from __future__ import annotations

import numpy as np
from pdf2image import convert_from_path
from PIL import Image as Pillow

from pipeline.errors import ItemError
from pipeline.records import FailureKind, Image


def draw_page(path: str, password: str | None, number: int, image: Image) -> None:
    """Draw page `number` (from 1) of the PDF at `path` onto all of `image` (height, width, 3).

    pdftoppm is held to the address space of this process. Its time is watched by the parent, which
    kills both. A password shows in the system's list of processes meanwhile.

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
