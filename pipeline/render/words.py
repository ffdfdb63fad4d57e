"""The text layer of a PDF page, as words with boxes in the page image."""

from __future__ import annotations

import re
from ctypes import c_double

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray

# pdfium marks a hyphen that it found at a line's end with U+0002 or U+FFFE; it ends the word,
# so that no box spans two lines.
_WORD = re.compile(r"[^\s\x00\x02\ufffe]+[\x02\ufffe]?")
_HYPHENS = str.maketrans("\x02\ufffe", "--")

# A page of small print has 20,000 characters; more than this help nobody read it.
_MAX_CHARACTERS = 200_000

WordBox = tuple[str, float, float, float, float]
_Rect = tuple[float, float, float, float]


def read_words(page: pdfium.PdfPage, width: int, height: int) -> list[WordBox]:
    """The words of the text layer: text, left, top, right, bottom.

    Boxes are in pixels of an image of `width` x `height` that shows the page as displayed (cropped
    and rotated), origin top left, cut to the image; words outside of it are left out, and so
    is what follows after 200,000 characters.
    """
    text_page = page.get_textpage()
    try:
        texts, boxes = _boxes_on_page(text_page)
    finally:
        text_page.close()
    if not texts:
        return []
    pixels = _to_pixels(boxes, page.get_bbox(), page.get_rotation(), width, height)
    inside = (pixels[:, 0] < pixels[:, 2]) & (pixels[:, 1] < pixels[:, 3])
    return [
        (text, *box)
        for text, box, keep in zip(texts, np.round(pixels, 2).tolist(), inside, strict=True)
        if keep
    ]


def _boxes_on_page(text_page: pdfium.PdfTextPage) -> tuple[list[str], NDArray[np.float64]]:
    """Words, and their boxes in the page's own space: left, bottom, right, top; shape (n, 4)."""
    # One box a word from CountRects over its characters costs a third of a box a character.
    handle = text_page.raw
    left, bottom, right, top = c_double(), c_double(), c_double(), c_double()
    texts, boxes = [], []
    for match in _WORD.finditer(_characters(text_page)):
        text = _storable(match[0])
        n_rects = pdfium_c.FPDFText_CountRects(handle, match.start(), len(match[0]))
        rects = []
        for index in range(n_rects):
            pdfium_c.FPDFText_GetRect(handle, index, left, top, right, bottom)
            rects.append((left.value, bottom.value, right.value, top.value))
        if text and rects:
            texts.append(text)
            boxes.append(rects[0] if n_rects == 1 else _union(rects))
    return texts, np.asarray(boxes, np.float64).reshape(-1, 4)


def _union(rects: list[_Rect]) -> _Rect:
    lefts, bottoms, rights, tops = zip(*rects, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _characters(text_page: pdfium.PdfTextPage) -> str:
    """The page's text with one code point for each of pdfium's characters, up to a limit."""
    n_chars = min(text_page.count_chars(), _MAX_CHARACTERS)
    text: str = text_page.get_text_range(0, n_chars) if n_chars else ""
    if len(text) == n_chars:
        return text
    # pdfium leaves some characters out of its text; reading one by one is exact, and slower.
    handle = text_page.raw
    return "".join(chr(pdfium_c.FPDFText_GetUnicode(handle, index)) for index in range(n_chars))


def _storable(text: str) -> str:
    """The text with surrogate pairs joined, lone ones replaced and control characters dropped."""
    if text.isprintable():
        return text
    joined = text.translate(_HYPHENS).encode("utf-16-le", "surrogatepass")
    characters = joined.decode("utf-16-le", "replace")
    return "".join(character for character in characters if character >= " ")


def _to_pixels(
    boxes: NDArray[np.float64],
    shown: tuple[float, float, float, float],
    rotation: int,
    width: int,
    height: int,
) -> NDArray[np.float64]:
    """Boxes (n, 4) in page space to left, top, right, bottom in the image, cut to its edges.

    `shown` is the part of the page that is displayed (left, bottom, right, top, before rotation);
    `rotation` is clockwise in degrees.
    """
    left, bottom, right, top = shown
    x = (boxes[:, [0, 2]] - left) / (right - left)
    y = (top - boxes[:, [1, 3]]) / (top - bottom)
    across, down = {0: (x, y), 90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[rotation]
    across = np.clip(across * width, 0, width)
    down = np.clip(down * height, 0, height)
    return np.stack([across.min(1), down.min(1), across.max(1), down.max(1)], axis=1)
