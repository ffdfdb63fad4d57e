import dataclasses

import pytest

from pipeline.synth.dense import dense_page
from pipeline.synth.document import make_document
from pipeline.synth.layout import Layout, Piece, Run
from pipeline.synth.typeface import Typeface
from pipeline.synth.words import Split

MONO = Typeface.LIBERATION_MONO


def run(x: float, top: float, *pieces: Piece) -> Run:
    return Run(x, top, pieces, 10.0, MONO)


def test_text_goes_by_lines_and_from_left_to_right() -> None:
    layout = Layout(
        (run(100, 20, Piece("4.20")), run(5, 40, Piece("Total")), run(5, 20, Piece("2 Tea")))
    )
    assert layout.text == "2 Tea 4.20\nTotal"


def test_glyphs_know_their_place_and_field() -> None:
    layout = Layout((run(10, 20, Piece("2 "), Piece("Tea", "items.0.name")),))
    glyphs = layout.glyphs()
    assert [(g.char, g.field, g.offset, g.line) for g in glyphs] == [
        ("2", "", 0, 0),
        (" ", "", 1, 0),
        ("T", "items.0.name", 0, 0),
        ("e", "items.0.name", 1, 0),
        ("a", "items.0.name", 2, 0),
    ]
    assert [g.x for g in glyphs] == pytest.approx([13 + 6 * i for i in range(5)], abs=0.02)
    assert {g.y for g in glyphs} == {20 + 9 - 3.5}  # the ascent of 8.33 rounds up to 9


def test_glyphs_are_the_characters_of_the_text_in_its_order() -> None:
    for seed in range(40):
        layouts = (
            make_document(f"{seed}", Split.TRAIN).pages[0].layout,
            dense_page(f"{seed}", Split.TRAIN).layout,
        )
        for layout in layouts:
            glyphs = layout.glyphs()
            of_lines = layout.text.split("\n")
            assert max(g.line for g in glyphs) == len(of_lines) - 1
            for number, text in enumerate(of_lines):
                printed = "".join(g.char for g in glyphs if g.line == number)
                assert printed.replace(" ", "") == text.replace(" ", "")
                assert len(text) - len(printed) == len(layout.lines()[number]) - 1


def test_text_does_not_depend_on_the_order_of_the_runs() -> None:
    layout = make_document("order", Split.TRAIN).pages[0].layout
    backwards = dataclasses.replace(layout, runs=layout.runs[::-1])
    assert backwards.text == layout.text
    assert backwards.glyphs() == layout.glyphs()
