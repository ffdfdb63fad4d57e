"""PDF files: born-digital pages from layouts, and scanned pages from images.

The bytes depend on the arguments alone (and the versions of the libraries): no clock, no chance.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.synth.layout import FONT_SIZE, HEIGHT, WIDTH, Run
from pipeline.synth.typeface import Typeface

if TYPE_CHECKING:
    from fpdf import FPDF

    from pipeline.synth.document import SynthPage

_CREATED = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_BOLD_OFFSET = 0.5
_JPEG_QUALITY = 80


def text_pdf(pages: Sequence[SynthPage]) -> bytes:
    """Return a PDF whose pages, one point a layout pixel, are text in embedded fonts.

    The paper is white; the ink is each page's own.
    """
    pdf = _empty_pdf()
    for typeface in dict.fromkeys(page.layout.typeface for page in pages):
        pdf.add_font(typeface.name, fname=typeface.path)
    for page in pages:
        typeface = page.layout.typeface
        pdf.add_page()
        pdf.set_font(typeface.name, size=FONT_SIZE)
        pdf.set_text_color(page.look.ink)
        for run in page.layout.runs:
            _write_run(pdf, run, typeface)
    return bytes(pdf.output())


def scan_pdf(images: Sequence[Image.Image]) -> bytes:
    """Return a PDF with one JPEG image a page, filling the page, and no text layer."""
    pdf = _empty_pdf()
    for image in images:
        jpeg = BytesIO()
        image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
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


def _write_run(pdf: FPDF, run: Run, typeface: Typeface) -> None:
    # A whole number, as hinted fonts have it: drawn at a pixel a point, feet do not blur.
    baseline = run.top + math.ceil(typeface.ascent * FONT_SIZE)
    pdf.text(run.x, baseline, run.text)
    if run.bold:
        # Readers know such a shadow for bold, and their text layer has the words once.
        pdf.text(run.x + _BOLD_OFFSET, baseline, run.text)
