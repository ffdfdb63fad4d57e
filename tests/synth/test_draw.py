import dataclasses
import random

import numpy as np
import pytest
from PIL import Image

from pipeline.synth.document import SynthPage, make_document
from pipeline.synth.draw import Look, choose_look, draw_page
from pipeline.synth.layout import HEIGHT, WIDTH, Layout, Piece, Run
from pipeline.synth.typeface import ADVANCE, Typeface
from pipeline.synth.words import Split

CLEAN = Look(background=255, ink=0, supersample=1, noise=0.0, noise_seed=0)


def page(seed: str = "draw") -> SynthPage:
    return make_document(seed, Split.TRAIN).pages[0]


@pytest.mark.parametrize("scale", [1, 3])
def test_the_image_is_grey_and_of_the_page_size(scale: int) -> None:
    image = draw_page(page().layout, page().look, scale)
    assert (image.mode, image.size) == ("L", (WIDTH * scale, HEIGHT * scale))


def test_no_ink_touches_the_edge() -> None:
    for seed in range(40):
        pixels = np.array(draw_page(page(str(seed)).layout, CLEAN))
        pixels[1:-1, 1:-1] = 255
        assert pixels.min() == 255


def test_text_is_inked_where_the_layout_puts_it() -> None:
    layout = Layout(Typeface.DEJAVU_SANS_MONO, (Run(20, 50, (Piece("HHHH"),), bold=False),))
    rows, columns = np.nonzero(np.asarray(draw_page(layout, CLEAN)) < 128)
    assert 20 <= columns.min() <= 22
    assert 41 <= columns.max() <= 44
    assert rows.min() >= 50
    assert rows.max() == 59  # the baseline of a font of 10 px whose ascent rounds up to 10


def test_bold_is_heavier() -> None:
    run = Run(20, 50, (Piece("HHHH"),), bold=False)
    plain, bold = (
        np.asarray(draw_page(Layout(Typeface.LIBERATION_MONO, (each,)), CLEAN), dtype=float)
        for each in (run, dataclasses.replace(run, bold=True))
    )
    assert (bold <= plain).all()
    assert (255 - bold).sum() > 1.2 * (255 - plain).sum()


def test_the_look_sets_the_grey_levels() -> None:
    look = Look(background=240, ink=50, supersample=2, noise=0.0, noise_seed=0)
    assert Image.Image.getextrema(draw_page(page().layout, look))[1] == 240
    assert int(np.asarray(draw_page(page().layout, look)).min()) >= 50


def test_noise_has_the_asked_deviation() -> None:
    look = dataclasses.replace(CLEAN, background=128, noise=5.0)
    pixels = np.asarray(draw_page(Layout(Typeface.LIBERATION_MONO, ()), look), dtype=float)
    assert pixels.std() == pytest.approx(5.0, abs=0.2)


def test_looks_stay_in_range() -> None:
    looks = [choose_look(random.Random(seed)) for seed in range(200)]
    assert all(235 <= look.background <= 255 and 0 <= look.ink <= 70 for look in looks)
    assert {look.supersample for look in looks} == {1, 2}
    assert all(look.noise == 0 or 1 < look.noise <= 6 for look in looks)


@pytest.mark.parametrize("typeface", list(Typeface))
def test_layout_arithmetic_agrees_with_the_fonts(typeface: Typeface) -> None:
    ttf = pytest.importorskip("fontTools.ttLib").TTFont(typeface.path)
    em = ttf["head"].unitsPerEm
    assert ttf["hmtx"]["A"][0] / em == pytest.approx(ADVANCE, abs=0.003)
    assert ttf["hhea"].ascent / em == pytest.approx(typeface.ascent, abs=0.001)
    assert set(map(ord, "€£$")) <= set(ttf.getBestCmap())
