"""Builders of small documents, and a renderer that draws at a known size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from pdf_builder import build_pages, build_pdf, build_stream, nested_forms

from pipeline.models.base import PagePlan
from pipeline.render.renderer import Renderer

LONGEST_EDGE = 400


@dataclass(frozen=True)
class Settings:
    renderer: str = "pdfium"
    cpu_s: float = 1.0
    wall_s: float = 30.0
    memory_mb: int = 512


def plan_page(width: float, height: float, scalable: bool) -> PagePlan:
    """Longest edge 400; an image is never enlarged; the canvas is 8 wider and 4 higher."""
    scale = LONGEST_EDGE / max(width, height)
    if not scalable:
        scale = min(scale, 1)
    drawn = max(1, round(width * scale)), max(1, round(height * scale))
    return PagePlan(*drawn, drawn[0] + 8, drawn[1] + 4)


@pytest.fixture
def filled_form() -> bytes:
    """A page of 200 x 200 with one text field, empty of any drawing of its own but its value."""
    return build_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [4 0 R] /NeedAppearances true "
            b"/DA (/Helv 30 Tf 0 g) /DR << /Font << /Helv 5 0 R >> >> >> >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Annots [4 0 R] >>",
            b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Filled) /F 4 /P 3 0 R "
            b"/Rect [10 50 190 150] /DA (/Helv 30 Tf 0 g) >>",
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )


@pytest.fixture
def hanging_forms() -> bytes:
    """A page of text in a document whose form fields unfold to 2^25."""
    first, depth = 6, 25
    fields = [
        b"<< /Kids [%d 0 R %d 0 R] /Parent %d 0 R >>" % (number + 1, number + 1, number - 1)
        for number in range(first, first + depth)
    ]
    return build_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R] >> >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R "
            b"/Resources << /Font << /F1 5 0 R >> >> >>",
            build_stream(b"BT /F1 40 Tf 20 80 Td (Hello) Tj ET"),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            *fields,
            b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (leaf) /Rect [0 0 1 1] /Parent %d 0 R >>"
            % (first + depth - 1),
        ]
    )


@pytest.fixture
def pdf_of() -> Callable[..., bytes]:
    return build_pages


@pytest.fixture(scope="session")
def hanging_pdf() -> bytes:
    """Pages: text; a form drawn 2^28 times; text."""
    good = (b"/MediaBox [0 0 200 200]", b"BT /F1 40 Tf 20 80 Td (Hello) Tj ET")
    entries = b"/MediaBox [0 0 200 200] /Resources << /XObject << /F 4 0 R >> >>"
    return build_pages(good, (entries, b"/F Do"), good, extra=nested_forms(28))


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return Settings


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(Settings(cpu_s=10), plan_page) as renderer:
        yield renderer


@pytest.fixture
def make_renderer() -> Callable[..., Renderer]:
    """`make_renderer(password=..., **settings)`."""

    def make(password: str | None = None, **changes: object) -> Renderer:
        return Renderer(Settings(**changes), plan_page, password)

    return make
