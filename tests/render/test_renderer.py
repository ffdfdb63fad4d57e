from __future__ import annotations

import io
import zlib
from pathlib import Path

import fpdf
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ItemError, JobError
from pipeline.records import FailureKind, MediaType
from pipeline.render.messages import Open
from pipeline.render.process import RenderProcess

HELLO = b"BT /F1 40 Tf 20 80 Td (Hello) Tj ET"
SQUARE = b"/MediaBox [0 0 200 200]"


@pytest.mark.parametrize(
    ("box", "height", "width"),
    [
        (b"[0 0 612 792]", 400, 309),
        (b"[0 0 595.276 841.89]", 400, 283),
        (b"[0 0 333.33 100.01]", 120, 400),
        (b"[0 0 14400 14400]", 400, 400),
        (b"[0 0 2 2000]", 400, 1),
        (b"[0 0 0.5 0.25]", 200, 400),
        (b"[-100 -50 100 50]", 200, 400),
    ],
)
def test_page_is_drawn_at_the_planned_size_on_the_planned_canvas(
    renderer, pdf_of, box, height, width
):
    renderer.open(pdf_of((b"/MediaBox " + box, b"0 g -20000 -20000 40000 40000 re f")))
    image = renderer.draw(1).image
    assert image.shape == (height + 4, width + 8, 1)
    assert (image[:height, :width] == 0).all()
    assert (image[height:] == 255).all()
    assert (image[:, width:] == 255).all()


def test_image_owns_its_memory_and_survives_the_next_page(renderer, pdf_of):
    renderer.open(pdf_of((SQUARE, b"0 0 200 200 re f"), (SQUARE, b"")))
    black = renderer.draw(1).image
    blank = renderer.draw(2).image
    assert black.flags.owndata
    assert black.flags.c_contiguous
    assert black.dtype == np.uint8
    assert black[:400, :400].max() == 0
    assert blank.min() == 255


def test_a_long_document_is_opened_anew_now_and_then(renderer, pdf_of, monkeypatch):
    opened = []
    ask = RenderProcess.ask

    def noted(process, request, *rest):
        opened.extend([request] if isinstance(request, Open) else [])
        return ask(process, request, *rest)

    monkeypatch.setattr(RenderProcess, "ask", noted)
    monkeypatch.setattr("pipeline.render.renderer._PAGES_AN_OPENING", 2)
    renderer.open(pdf_of(*[(SQUARE, b"0 g 0 0 200 200 re f")] * 5))
    assert all((renderer.draw(number).image[:400, :400] == 0).all() for number in range(1, 6))
    assert len(opened) == 3


def test_grey_pages_have_one_channel_and_coloured_ones_three(renderer, pdf_of):
    renderer.open(pdf_of((SQUARE, HELLO), (SQUARE, b"1 0 0 rg 50 50 9 9 re f")))
    assert renderer.draw(1).image.shape[2] == 1
    coloured = renderer.draw(2).image
    assert coloured.shape[2] == 3
    assert tuple(coloured[290, 110]) == (255, 0, 0)


def test_crop_box_that_misses_the_media_box_shows_the_media_box(renderer, pdf_of):
    renderer.open(pdf_of((SQUARE + b"/CropBox [500 500 600 600]", b"0 0 100 200 re f")))
    image = renderer.draw(1).image
    assert (image[:400, :199] == 0).all()
    assert (image[:400, 201:] == 255).all()


@pytest.mark.parametrize("name", ["pdfium", "poppler"])
def test_rotation_and_crop_are_applied(make_renderer, pdf_of, name):
    # The marked corner is the crop's bottom left; turned 90 degrees clockwise it is at top left.
    box = b"/MediaBox [0 0 300 300] /CropBox [100 50 200 250] /Rotate 90"
    with make_renderer(renderer=name) as renderer:
        renderer.open(pdf_of((box, b"100 50 20 20 re f")))
        page = renderer.draw(1)
    assert page.rotation == 90
    assert page.image.shape == (204, 408, 1)
    assert page.image[2:38, 2:38].max() < 10
    assert page.image[:, 45:].min() == 255
    assert page.image[45:].min() == 255


@pytest.mark.parametrize("name", ["pdfium", "poppler"])
def test_encrypted_documents_open_with_the_password_only(make_renderer, name):
    pdf = fpdf.FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=60)
    pdf.cell(text="secret")
    pdf.set_encryption(owner_password="boss", user_password="s3cret")
    locked = bytes(pdf.output())
    for password in ("s3cret", "boss"):
        with make_renderer(renderer=name, password=password) as renderer:
            renderer.open(locked)
            page = renderer.draw(1)
            assert [word.text for word in page.words] == ["secret"]
            assert page.image.min() == 0
    for password in (None, "wrong"):
        with make_renderer(password=password) as renderer:
            with pytest.raises(ItemError) as caught:
                renderer.open(locked)
            assert caught.value.kind is FailureKind.ENCRYPTED


def test_password_of_the_job_does_not_lock_out_documents_without_one(make_renderer, pdf_of):
    pdf = fpdf.FPDF()
    pdf.add_page()
    pdf.set_encryption(owner_password="boss")
    with make_renderer(password="other") as renderer:
        assert renderer.open(bytes(pdf.output())).n_pages == 1
        assert renderer.open(pdf_of((SQUARE, HELLO))).n_pages == 1


def test_filled_forms_are_drawn(renderer, filled_form):
    renderer.open(filled_form)
    assert renderer.draw(1).image.min() < 100


def test_bytes_and_path_give_the_same_page(renderer, pdf_of, tmp_path):
    content = pdf_of((SQUARE, HELLO))
    path = tmp_path / "späße.pdf"
    path.write_bytes(content)
    assert renderer.open(path).media_type is MediaType.PDF
    from_path = renderer.draw(1)
    renderer.open(content)
    from_bytes = renderer.draw(1)
    assert (from_path.image == from_bytes.image).all()
    assert from_path.words == from_bytes.words


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"", FailureKind.UNREADABLE, "empty"),
        (b"<!DOCTYPE html><p>404", FailureKind.UNSUPPORTED, "HTML"),
        (b"PK\x03\x04 a zip", FailureKind.UNSUPPORTED, "listed as application/pdf"),
        (b"%PDF-1.7\nno more", FailureKind.UNREADABLE, "pdfium"),
        (b"\x89PNG\r\n\x1a\nno more", FailureKind.UNREADABLE, "image/png"),
        (b"II*\0no more", FailureKind.UNREADABLE, ""),
    ],
)
def test_what_is_no_document_fails_with_one_clear_line(renderer, content, kind, says):
    with pytest.raises(ItemError) as caught:
        renderer.open(content, MediaType.PDF)
    assert caught.value.kind is kind
    assert says in caught.value.message
    assert caught.value.message.isprintable()
    assert "/proc" not in caught.value.message


def test_missing_file_is_source_missing(renderer, tmp_path):
    with pytest.raises(ItemError) as caught:
        renderer.open(tmp_path / "gone.pdf")
    assert caught.value.kind is FailureKind.SOURCE_MISSING


def test_pdf_without_pages_is_empty(renderer, pdf_of):
    with pytest.raises(ItemError) as caught:
        renderer.open(pdf_of())
    assert caught.value.kind is FailureKind.EMPTY


def test_page_outside_the_document_is_the_callers_mistake(renderer, pdf_of):
    renderer.open(pdf_of((SQUARE, HELLO)))
    for number in (0, 2):
        with pytest.raises(ValueError, match="page"):
            renderer.draw(number)


def test_truncated_image_is_unreadable_and_the_next_document_draws(renderer):
    file = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(file, "PNG")
    renderer.open(file.getvalue()[:5000])
    with pytest.raises(ItemError) as caught:
        renderer.draw(1)
    assert caught.value.kind is FailureKind.UNREADABLE
    renderer.open(file.getvalue())
    assert renderer.draw(1).image.shape == (304, 308, 1)


def test_poppler_asked_for_and_not_installed(make_renderer, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="pdftoppm"):
        make_renderer(renderer="poppler")


def test_poppler_draws_what_pdfium_dies_of(make_renderer, pdf_of):
    form = b"<< /Subtype /Form /BBox [0 0 200 200] /Resources << /XObject << /F 4 0 R >> >> "
    nested = form + b"/Length 37 >>\nstream\n0 0 100 200 re f /F Do /F Do           \nendstream"
    entries = SQUARE + b"/Resources << /XObject << /F 4 0 R >> >>"
    with make_renderer() as renderer:
        renderer.open(pdf_of((entries, b"/F Do"), extra=(nested,)))
        image = renderer.draw(1).image
    assert image[:400, :199].max() < 10


def test_content_stream_bomb_runs_out_of_memory(make_renderer, pdf_of, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    bomb = zlib.compress(b"0 0 m 1 1 l S\n" * 2_000_000, 9)
    entries = b"/Subtype /Form /BBox [0 0 9 9] /Filter /FlateDecode"
    form = b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(bomb), bomb)
    bad = (SQUARE + b"/Resources << /XObject << /F 4 0 R >> >>", b"/F Do")
    content = pdf_of((SQUARE, HELLO), bad, (SQUARE, HELLO), extra=(form,))
    with make_renderer(cpu_s=20, memory_mb=128) as renderer:
        assert renderer.open(content).n_pages == 3
        with pytest.raises(ItemError) as caught:
            renderer.draw(2)
        assert caught.value.kind is FailureKind.RENDER_MEMORY
        assert [word.text for word in renderer.draw(3).words] == ["Hello"]


def test_path_of_a_document_may_hold_any_byte(renderer, pdf_of, tmp_path):
    path = Path(str(tmp_path) + "/odd\udcff.pdf")
    path.write_bytes(pdf_of((SQUARE, HELLO)))
    assert renderer.open(path).n_pages == 1
