from __future__ import annotations

import numpy as np

from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.records import Page, SampleId, Word
from pipeline.stages.encode import encode

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
