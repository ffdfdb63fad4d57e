"""The documents that the benchmarks draw when they are given none: made up, A4, of every kind."""

from __future__ import annotations

import io
import random
from pathlib import Path

import PIL.Image
from fpdf import FPDF

from pipeline.synth.document import make_document
from pipeline.synth.draw import draw_page
from pipeline.synth.words import Split

_KINDS = ("text", "table", "colour", "text", "grey-scan", "text", "colour-scan", "table")
_PAGES = 4
_WORDS = [
    "the",
    "of",
    "invoice",
    "total",
    "amount",
    "delivered",
    "within",
    "thirty",
    "days",
    "payable",
    "goods",
    "net",
]
_SCAN_SIZE = (1654, 2339)  # A4 at 200 dpi


def make_documents(folder: Path) -> list[Path]:
    """Write eight PDFs of four A4 pages into `folder`: text, tables, colour graphics and scans."""
    chance = random.Random(0)
    paths = []
    for index, kind in enumerate(_KINDS):
        pdf = FPDF(unit="pt", format="A4")
        pdf.set_auto_page_break(False)
        for page in range(_PAGES):
            pdf.add_page()
            if kind.endswith("scan"):
                pdf.image(_scan(f"{index}/{page}", kind), 0, 0, pdf.w, pdf.h)
            else:
                _write(pdf, kind, chance)
        paths.append(folder / f"{index}-{kind}.pdf")
        pdf.output(str(paths[-1]))
    return paths


def _write(pdf: FPDF, kind: str, chance: random.Random) -> None:
    pdf.set_font("Helvetica", size=10)
    for line in range(52):
        pdf.text(50, 50 + 14 * line, " ".join(chance.choices(_WORDS, k=13)))
        if kind == "table":
            pdf.rect(45, 39 + 14 * line, 505, 14)
    if kind == "colour":
        for _ in range(60):
            pdf.set_fill_color(*(chance.randrange(256) for _ in range(3)))
            x, y = chance.randrange(500), chance.randrange(700)
            pdf.ellipse(x, y, 30, 20 + chance.randrange(90), style="F")


def _scan(seed: str, kind: str) -> io.BytesIO:
    """Return a JPEG of a receipt with the noise of a scanner; in colour, a yellowed one."""
    page = make_document(seed, Split.TEST).pages[0]
    image = draw_page(page.layout, page.look, scale=4).resize(_SCAN_SIZE)  # at more, out of noise
    if kind == "colour-scan":
        image = PIL.Image.merge("RGB", (image, image, image.point(lambda level: level * 0.9)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file
