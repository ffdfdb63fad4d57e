from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ItemError
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.records import Page, SampleId, Word
from pipeline.stages.encode import encode, read_text, require_text, together

ID = SampleId("d" * 64, "a.pdf", 5, (2, 3))


def page(number: int, level: int, *words: Word) -> Page:
    return Page(number, np.full((120, 100, 1), level, np.uint8), words)


def test_each_page_becomes_its_tiles_in_order_with_its_words() -> None:
    word = Word("Total", 1, 2, 3, 4)
    encoder = Idefics2Encoder(60, 40, splitting=True)
    sample = encode(ID, [page(2, 10, word), page(3, 20)], encoder)
    assert sample.id == ID
    assert [len(tiles) for tiles in sample.tiles] == [5, 5]
    assert [{t.flat[0] for t in tiles} for tiles in sample.tiles] == [{10}, {20}]
    assert [tiles[0].shape for tiles in sample.tiles] == [(60, 50, 1), (60, 50, 1)]
    assert sample.words == ((word,), ())


def test_tiles_are_bytes_and_grey_stays_grey() -> None:
    sample = encode(ID, [page(2, 10)], Idefics2Encoder(60, 40, splitting=False))
    ((tile,),) = sample.tiles
    assert tile.dtype == np.uint8
    assert tile.shape == (60, 50, 1)


def test_samples_of_pages_together_are_as_encoded_at_once() -> None:
    pages = [page(2, 10, Word("Total", 1, 2, 3, 4)), page(3, 20)]
    encoder = Idefics2Encoder(60, 40, splitting=True)
    parts = [
        replace(
            encode(replace(ID, page_numbers=(one.number,)), [one], encoder),
            rasterize_s=0.25,
            encode_s=one.number,
        )
        for one in pages
    ]
    found, at_once = together(parts), encode(ID, pages, encoder)
    assert (found.id, found.words) == (ID, at_once.words)
    assert [[t.tobytes() for t in tiles] for tiles in found.tiles] == [
        [t.tobytes() for t in tiles] for tiles in at_once.tiles
    ]
    assert (found.rasterize_s, found.encode_s) == (0.5, 5)


@pytest.mark.parametrize(
    ("numbers", "told"), [((4,), "page 4 has"), ((1, 2, 3, 7), "pages 1-3,7 have")]
)
def test_pages_that_print_nothing_are_of_no_use_without_their_images(
    numbers: tuple[int, ...], told: str
) -> None:
    sample_id = replace(ID, page_numbers=numbers)
    blank = [page(number, 0, Word(" ", 0, 0, 1, 1)) for number in numbers]
    require_text(read_text(sample_id, [page(1, 0, Word("Total", 1, 2, 3, 4)), *blank[1:]]))
    with pytest.raises(ItemError, match=rf"text layer only and {told} none; add {{page}} to it"):
        require_text(read_text(sample_id, blank))
