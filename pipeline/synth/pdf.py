"""PDF files: born-digital pages from layouts, and scanned pages from images.

The bytes depend on the arguments alone (and the versions of the libraries): no clock, no chance.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.synth.layout import HEIGHT, WIDTH

if TYPE_CHECKING:
    from fpdf import FPDF

    from pipeline.synth.draw import Printed

_CREATED = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def text_pdf(pages: Sequence[Printed]) -> bytes:
    """Return a PDF whose pages, one point a layout pixel, are text in embedded fonts.

    The paper is white; the ink is each page's own.
    """
    pdf = _empty_pdf()
    for typeface in sorted({run.typeface for page in pages for run in page.layout.runs}):
        pdf.add_font(typeface.name, fname=typeface.path)
    for page in pages:
        pdf.add_page()
        pdf.set_text_color(page.look.ink)
        for run in page.layout.runs:
            pdf.set_font(run.typeface.name, size=run.size)
            pdf.text(run.x, run.baseline, run.text)
    return bytes(pdf.output())


def scan_pdf(images: Sequence[Image.Image], qualities: Sequence[int]) -> bytes:
    """Return a PDF with one JPEG image a page, of its quality, filling the page; no text layer."""
    pdf = _empty_pdf()
    for image, quality in zip(images, qualities, strict=True):
        jpeg = BytesIO()
        image.save(jpeg, "JPEG", quality=quality)
        pdf.add_page()
        pdf.image(jpeg, x=0, y=0, w=WIDTH, h=HEIGHT)
    return bytes(pdf.output())


def _empty_pdf() -> FPDF:
    # Imported here: only those who make documents need the library.
    from fpdf import FPDF

    pdf = FPDF(unit="pt", format=(WIDTH, HEIGHT))
    pdf.set_creation_date(_CREATED)
    pdf.set_auto_page_break(False)
    return pdf
