"""Builders of small documents, and a renderer that draws at a known size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

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


def build_pdf(objects: list[bytes]) -> bytes:
    """A PDF of the objects in order, the first being its catalog."""
    out = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return out + trailer % (len(objects) + 1, start)


def build_stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(content), content)


def build_pages(*pages: tuple[bytes, bytes], extra: tuple[bytes, ...] = ()) -> bytes:
    """A PDF of pages given as (entries of the page, content stream).

    Font /F1 is Helvetica. `extra` objects are numbered from 4.
    """
    first = 4 + len(extra)
    kids = b" ".join(b"%d 0 R" % (first + 2 * index) for index in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        *extra,
    ]
    for entries, content in pages:
        resources = b"" if b"/Resources" in entries else b"/Resources << /Font << /F1 3 0 R >> >>"
        page = b"<< /Type /Page /Parent 2 0 R %s %s /Contents %d 0 R >>"
        objects.append(page % (entries, resources, len(objects) + 2))
        objects.append(build_stream(content))
    return build_pdf(objects)


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
    depth = 28
    forms = [
        build_stream(
            b"/F Do /F Do",
            b"/Type /XObject /Subtype /Form /BBox [0 0 200 200] "
            b"/Resources << /XObject << /F %d 0 R >> >>" % (number + 1),
        )
        for number in range(4, 4 + depth)
    ]
    forms.append(build_stream(b"0 0 9 9 re f", b"/Subtype /Form /BBox [0 0 200 200]"))
    good = (b"/MediaBox [0 0 200 200]", b"BT /F1 40 Tf 20 80 Td (Hello) Tj ET")
    entries = b"/MediaBox [0 0 200 200] /Resources << /XObject << /F 4 0 R >> >>"
    return build_pages(good, (entries, b"/F Do"), good, extra=tuple(forms))


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
