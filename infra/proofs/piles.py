"""Piles of small documents for the proofs: quick to draw, no two pages alike."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
from fpdf import FPDF

PDF_PAGES = 3


MIXED: Mapping[str, float] = {"image": 70, "pdf": 20, "copy": 7, "broken": 3}


def make_pile(
    folder: Path, n_documents: int, seed: int, shares: Mapping[str, float] = MIXED
) -> None:
    """Write so many documents: images, PDFs of three pages, copies, and some that are broken."""
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    written: list[Path] = []
    for number in range(n_documents):
        kind = chance.choices(tuple(shares), tuple(shares.values()))[0]
        path = folder / f"{number:06}.pdf"
        if kind == "pdf":
            path.write_bytes(_pdf(chance))
        elif kind == "broken":
            path.write_bytes(b"%PDF-1.7\n" + chance.randbytes(200))
        elif kind == "copy" and written:
            original = chance.choice(written)
            path = path.with_suffix(original.suffix)
            path.write_bytes(original.read_bytes())
        else:
            path = path.with_suffix(".png")
            _image(chance).save(path)
        written.append(path)


def _image(chance: random.Random) -> PIL.Image.Image:
    pixels = np.frombuffer(chance.randbytes(40 * 56), np.uint8).reshape(56, 40)
    return PIL.Image.fromarray(pixels)


def _pdf(chance: random.Random) -> bytes:
    pdf = FPDF(unit="pt", format=(200, 280))
    for _ in range(PDF_PAGES):
        pdf.add_page()
        for _ in range(6):
            pdf.set_fill_color(*chance.randbytes(3))
            pdf.rect(chance.uniform(0, 150), chance.uniform(0, 200), 50, 80, style="F")
    return bytes(pdf.output())
