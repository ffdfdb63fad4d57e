import pypdfium2 as pdfium
import pytest

from pipeline.synth.document import make_document
from pipeline.synth.draw import draw_page
from pipeline.synth.layout import HEIGHT, WIDTH
from pipeline.synth.pdf import scan_pdf, text_pdf
from pipeline.synth.words import Split


@pytest.mark.parametrize("seed", range(12))
def test_the_text_layer_is_the_layouts_text(seed: int) -> None:
    document = make_document(f"{seed}", Split.TRAIN, n_pages=1 + seed % 3)
    with pdfium.PdfDocument(text_pdf(document.pages)) as pdf:
        assert len(pdf) == len(document.pages)
        for drawn, page in zip(pdf, document.pages, strict=True):
            assert drawn.get_size() == (WIDTH, HEIGHT)
            expected = " ".join(run.text for run in page.layout.runs)
            assert drawn.get_textpage().get_text_bounded().split() == expected.split()


def test_text_stands_where_the_layout_puts_it() -> None:
    (page,) = make_document("boxes", Split.TRAIN).pages
    run = page.layout.runs[0]
    with pdfium.PdfDocument(text_pdf([page])) as pdf:
        left, _, _, top = pdf[0].get_textpage().get_charbox(0)
    assert left == pytest.approx(run.x, abs=1.5)
    assert HEIGHT - top == pytest.approx(run.top, abs=4)


def test_a_scan_has_pixels_and_no_text() -> None:
    document = make_document("scan", Split.TRAIN, n_pages=2)
    images = [draw_page(page.layout, page.look, scale=3) for page in document.pages]
    with pdfium.PdfDocument(scan_pdf(images)) as pdf:
        assert len(pdf) == 2
        for page in pdf:
            assert page.get_size() == (WIDTH, HEIGHT)
            assert page.get_textpage().count_chars() == 0
            (embedded,) = page.get_objects()
            assert embedded.get_px_size() == (WIDTH * 3, HEIGHT * 3)


def test_bytes_do_not_depend_on_the_clock_or_the_run() -> None:
    document = make_document("again", Split.TRAIN, n_pages=2)
    assert text_pdf(document.pages) == text_pdf(document.pages)
    assert b"D:20000101000000" in text_pdf(document.pages)
