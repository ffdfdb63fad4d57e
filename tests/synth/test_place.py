"""Pages as they are placed: nothing overflows, overlaps or is left out."""

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest

from pipeline.synth.dense import dense_page
from pipeline.synth.document import lay_out, make_document
from pipeline.synth.layout import HEIGHT, WIDTH, Layout, Piece, Run
from pipeline.synth.lines import Cell, Line, plain
from pipeline.synth.place import MARGIN, DoesNotFitError, choose_setting, place
from pipeline.synth.receipt import invent_receipt
from pipeline.synth.words import Split


def documents() -> Iterable[Layout]:
    return (make_document(f"{seed}", Split.TRAIN).pages[0].layout for seed in range(300))


def assert_apart(layout: Layout, least_pitch: float) -> None:
    for line in layout.lines():
        assert line[0].x >= MARGIN
        assert line[-1].x + line[-1].width <= WIDTH - MARGIN + 0.01
        for left, right in pairwise(line):
            assert right.x - left.x - left.width > 0.27 * left.size
    tops = [(line[0].top, max(run.size for run in line)) for line in layout.lines()]
    assert tops[0][0] >= MARGIN - 1
    assert tops[-1][0] + 1.2 * tops[-1][1] <= HEIGHT - MARGIN + 1
    for (above, size), (below, _) in pairwise(tops):
        assert below - above >= least_pitch * size - 0.01


def test_every_run_of_a_document_lies_on_the_page_and_none_overlap() -> None:
    for layout in documents():
        assert_apart(layout, 1.3)


def test_every_run_of_a_dense_page_lies_on_the_page_and_none_overlap() -> None:
    for seed in range(100):
        assert_apart(dense_page(f"{seed}", Split.TRAIN).layout, 1.29)


def test_sizes_and_typefaces_are_as_often_as_meant() -> None:
    runs: list[Run] = [layout.runs[-1] for layout in documents()]
    mono = [run for run in runs if run.typeface.is_mono]
    assert 0.6 < len(mono) / len(runs) < 0.8
    assert Counter(run.size for run in mono).most_common(1)[0][0] == 10.0
    assert {run.typeface for run in runs} == {run.typeface for run in mono} | {
        run.typeface for run in runs if run.size >= 11
    }


def test_optional_lines_give_way() -> None:
    must = [Line((Cell((Piece(f"{n}"),)),)) for n in range(12)]
    may = [plain("thanks") for _ in range(20)]
    for seed in range(20):
        rng = random.Random(seed)
        layout = place(rng, choose_setting(rng), [*must, *may])
        assert [line for line in layout.text.split("\n") if line != "thanks"] == [
            f"{n}" for n in range(12)
        ]


def test_too_many_items_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(DoesNotFitError, match="do not fit on a page of 168 x 224"):
        lay_out(rng, invent_receipt(rng, Split.TRAIN, n_items=20), Split.TRAIN)
