import dataclasses
import random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.synth.atlas import Edges
from pipeline.synth.document import SynthPage, make_document
from pipeline.synth.draw import MOST_DEGREES, Look, choose_look, draw_page
from pipeline.synth.layout import HEIGHT, WIDTH, Layout, Piece, Run
from pipeline.synth.typeface import CHARACTERS, Typeface
from pipeline.synth.words import Split

CLEAN = Look()
EMPTY = Layout(())


def page(seed: str = "draw") -> SynthPage:
    return make_document(seed, Split.TRAIN).pages[0]


def ink(layout: Layout, look: Look, scale: int = 1) -> NDArray[np.float64]:
    return 255 - np.asarray(draw_page(layout, look, scale), dtype=float)


def middle_of(inked: NDArray[np.float64]) -> tuple[float, float]:
    rows, columns = np.indices(inked.shape) + 0.5
    return (inked * columns).sum() / inked.sum(), (inked * rows).sum() / inked.sum()


def one_run(text: str, typeface: Typeface, x: float = 20, size: float = 10) -> Layout:
    return Layout((Run(x, 50, (Piece(text),), size, typeface),))


@pytest.mark.parametrize("scale", [1, 3])
def test_the_image_is_grey_and_of_the_page_size(scale: int) -> None:
    image = draw_page(page().layout, page().look, scale)
    assert (image.mode, image.size) == ("L", (WIDTH * scale, HEIGHT * scale))


def test_no_ink_touches_the_edge_whichever_way_the_page_turns() -> None:
    for seed in range(60):
        turned = dataclasses.replace(CLEAN, degrees=MOST_DEGREES * (-1) ** seed)
        for look in (CLEAN, turned):
            pixels = np.array(draw_page(page(f"{seed}").layout, look))
            pixels[1:-1, 1:-1] = 255
            assert pixels.min() > 250


@pytest.mark.parametrize("edges", list(Edges))
@pytest.mark.parametrize("degrees", [0.0, MOST_DEGREES, -MOST_DEGREES])
def test_glyphs_tell_where_the_ink_is(edges: Edges, degrees: float) -> None:
    look = dataclasses.replace(CLEAN, edges=edges, degrees=degrees)
    for seed in range(4):
        layout = page(f"glyphs {seed}").layout
        inked = ink(layout, look, scale=2)
        for glyph in layout.glyphs():
            if not (glyph.char.isupper() or glyph.char.isdigit()):
                continue
            x, y = look.place(glyph.x, glyph.y)
            left, top = round(2 * x) - 5, round(2 * y) - 8
            found = middle_of(inked[top : top + 16, left : left + 10] + 1e-9)
            assert left + found[0] == pytest.approx(2 * x, abs=2.6)
            assert top + found[1] == pytest.approx(2 * y, abs=2.6)


def test_a_look_tells_where_its_turn_brings_a_point() -> None:
    layout = one_run("o", Typeface.DEJAVU_SANS_MONO, x=150)
    look = dataclasses.replace(CLEAN, edges=Edges.FREE)
    straight = middle_of(ink(layout, look))
    for degrees in (-1.2, 0.8):
        turned = dataclasses.replace(look, degrees=degrees)
        assert middle_of(ink(layout, turned)) == pytest.approx(turned.place(*straight), abs=0.05)
        assert abs(turned.place(*straight)[1] - straight[1]) > 0.8


@pytest.mark.parametrize("typeface", list(Typeface))
@pytest.mark.parametrize("edges", list(Edges))
def test_every_character_has_ink_of_its_own(typeface: Typeface, edges: Edges) -> None:
    look = dataclasses.replace(CLEAN, edges=edges)
    drawn = {c: draw_page(one_run(c, typeface), look).tobytes() for c in CHARACTERS}
    assert len(set(drawn.values())) == len(CHARACTERS)


def test_edges_differ_in_how_they_meet_the_pixels() -> None:
    layout = one_run("HHHH", Typeface.LIBERATION_MONO, x=20.25)
    hinted, smooth, free = (ink(layout, dataclasses.replace(CLEAN, edges=edges)) for edges in Edges)
    columns = [set(np.nonzero(each.sum(axis=0) > 300)[0]) for each in (hinted, smooth, free)]
    assert all(found <= set(range(20, 46)) for found in columns)
    assert len({each.tobytes() for each in (hinted, smooth, free)}) == 3
    for each in (smooth, free):
        assert each.sum() == pytest.approx(hinted.sum(), rel=0.35)


def test_a_scale_is_the_same_page_finer() -> None:
    look = dataclasses.replace(CLEAN, edges=Edges.FREE)
    fine = draw_page(page().layout, look, scale=4).reduce(4)
    difference = np.abs(255.0 - np.asarray(fine) - ink(page().layout, look))
    assert difference.mean() < 2


def test_the_look_sets_the_grey_levels() -> None:
    look = Look(background=240, ink=50)
    lowest, highest = Image.Image.getextrema(draw_page(page().layout, look))
    assert (lowest, highest) == (50, 240)


def test_noise_has_the_asked_deviation() -> None:
    look = dataclasses.replace(CLEAN, background=128, noise=5.0)
    pixels = np.asarray(draw_page(EMPTY, look), dtype=float)
    assert pixels.std() == pytest.approx(5.0, abs=0.2)
    other = np.asarray(draw_page(EMPTY, dataclasses.replace(look, seed=1234567)), dtype=float)
    assert abs(np.corrcoef(pixels.ravel(), other.ravel())[0, 1]) < 0.05


def test_blur_spreads_the_ink_and_keeps_it() -> None:
    sharp, soft = (ink(page().layout, dataclasses.replace(CLEAN, blur=blur)) for blur in (0.0, 0.5))
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.02)
    assert (soft > 0).sum() > 1.2 * (sharp > 0).sum()


def test_fading_takes_no_more_than_asked() -> None:
    full, faded = (
        ink(page().layout, dataclasses.replace(CLEAN, fading=fading, seed=3))
        for fading in (0.0, 0.5)
    )
    assert (faded >= 0.5 * full - 1).all()
    assert faded.sum() < 0.95 * full.sum()


def test_jpeg_leaves_its_traces() -> None:
    clean = ink(page().layout, CLEAN)
    packed = ink(page().layout, dataclasses.replace(CLEAN, jpeg=45))
    assert 0.5 < np.abs(packed - clean).mean() < 12


def test_looks_stay_legible_and_vary() -> None:
    looks = [choose_look(random.Random(seed)) for seed in range(1000)]
    for look in looks:
        assert 225 <= look.background <= 255
        assert 0 <= look.ink <= 90
        assert (look.background - look.ink) * (1 - look.fading) > 90
        assert look.noise == 0 or 1 < look.noise <= 6
        assert look.blur == 0 or 0.2 <= look.blur <= 0.55
        assert look.jpeg == 0 or 45 <= look.jpeg <= 90
        assert abs(look.degrees) <= MOST_DEGREES
    effects = [(look.degrees, look.fading, look.blur, look.noise, look.jpeg) for look in looks]
    shares = np.mean(np.array(effects) != 0, axis=0)
    assert shares == pytest.approx([0.2, 0.2, 0.2, 0.54, 0.25], abs=0.05)
    assert 0.33 < np.mean([not any(each) for each in effects]) < 0.44
    assert {look.edges for look in looks} == set(Edges)
