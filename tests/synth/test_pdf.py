from dataclasses import replace

import numpy as np
import pypdfium2 as pdfium
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.synth.atlas import Edges
from pipeline.synth.document import make_document
from pipeline.synth.draw import Look, draw_page
from pipeline.synth.layout import HEIGHT, WIDTH
from pipeline.synth.pdf import scan_pdf, text_pdf
from pipeline.synth.words import Split


def rendered(content: bytes) -> NDArray[np.float64]:
    with pdfium.PdfDocument(content) as pdf:
        pixels = pdf[0].render(scale=1).to_numpy()  # in colour, as the pipeline draws
    return pixels[:, :, 0].astype(float)


@pytest.mark.parametrize("seed", range(30))
def test_the_text_layer_is_the_layouts_text(seed: int) -> None:
    document = make_document(f"{seed}", Split.TRAIN, n_pages=1 + seed % 3)
    with pdfium.PdfDocument(text_pdf(document.pages)) as pdf:
        assert len(pdf) == len(document.pages)
        for drawn, page in zip(pdf, document.pages, strict=True):
            assert drawn.get_size() == (WIDTH, HEIGHT)
            found = drawn.get_textpage().get_text_bounded().split()
            assert found == page.layout.text.split()


def test_a_smooth_page_is_drawn_as_pdfium_draws_it() -> None:
    differences = []
    for seed in range(12):
        (page,) = make_document(f"{seed}", Split.TRAIN).pages
        look = Look(ink=page.look.ink, edges=Edges.SMOOTH)
        drawn = np.asarray(draw_page(page.layout, look), dtype=float)
        shown = rendered(text_pdf([page]))
        differences.append(np.abs(drawn - shown).mean())
        hinted = np.asarray(draw_page(page.layout, replace(look, edges=Edges.HINTED)), dtype=float)
        assert np.abs(hinted - shown).mean() > 3 * differences[-1]
    assert np.mean(differences) < 1.2


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_pdfium_halves_a_scan_by_taking_the_mean(scale: int) -> None:
    (page,) = make_document("halved", Split.TRAIN).pages
    image = draw_page(page.layout, page.look, scale)
    shown = rendered(scan_pdf([image], [95]))
    mean = image.resize((WIDTH, HEIGHT), Pillow.Resampling.BOX)
    assert np.abs(np.asarray(mean, dtype=float) - shown).mean() < 0.6


def test_a_scan_has_pixels_and_no_text() -> None:
    document = make_document("scan", Split.TRAIN, n_pages=2)
    images = [draw_page(page.layout, page.look, scale=3) for page in document.pages]
    with pdfium.PdfDocument(scan_pdf(images, [80, 45])) as pdf:
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


def test_the_ink_is_the_pages_own() -> None:
    (page,) = make_document("ink", Split.TRAIN).pages
    grey = replace(page, look=replace(page.look, ink=80))
    assert rendered(text_pdf([grey])).min() == pytest.approx(80, abs=3)
