"""Samples and answers through Arrow, IPC included, and back."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Pillow
from PIL import ImageDraw

from pipeline.records import (
    Answer,
    Failed,
    Failure,
    FailureKind,
    FinishReason,
    Generation,
    Sample,
    SampleId,
    StageName,
    Word,
)
from pipeline.runners.transport import (
    ANSWERS,
    SAMPLES,
    answers_of,
    answers_table,
    pack,
    samples_of,
    samples_table,
    unpack,
)

FAILURE = Failure(StageName.RASTERIZE, FailureKind.RENDER_CRASH, "died: signal 6", attempt=3)
ID = SampleId("ab" * 32, "s3://bucket/a b.pdf", 3, (2,), {"batch": "7", "ключ": "значение"})
GENERATION = Generation(
    '{"a": "é 東京 😀"}', (7, 500, 0), (-0.5, -0.25, 0.0), FinishReason.STOP, 326, 0.125, 2.5
)


def through_ipc(table: pa.Table) -> pa.Table:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def noise(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def assert_same(found: Sample | Failed, expected: Sample | Failed) -> None:
    assert found.id == expected.id
    assert dict(found.id.source) == dict(expected.id.source)
    if isinstance(expected, Failed):
        assert found == expected
        return
    assert isinstance(found, Sample)
    assert found.words == expected.words
    assert (found.rasterize_s, found.encode_s) == (expected.rasterize_s, expected.encode_s)
    assert [len(page) for page in found.tiles] == [len(page) for page in expected.tiles]
    for page, original in zip(found.tiles, expected.tiles, strict=True):
        for tile, expected_tile in zip(page, original, strict=True):
            assert tile.dtype == np.uint8
            assert np.array_equal(tile, expected_tile)


def test_samples_come_back_as_they_went() -> None:
    samples = [
        Sample(
            ID,
            tiles=((noise(1, 70, 49, 1), noise(2, 35, 25, 1)), (noise(3, 98, 70, 3),)),
            words=((Word("Total:", 0.5, 1.25, 20.75, 30.0), Word("é東", 1, 2, 3, 4)), ()),
            rasterize_s=0.1,
            encode_s=1 / 3,
        ),
        Failed(ID, FAILURE),
        Sample(SampleId("cd" * 32, "b.png", 1, (1,)), ((noise(4, 1, 1, 1),),)),
    ]
    table = through_ipc(samples_table(samples))
    assert table.schema == SAMPLES
    for found, expected in zip(samples_of(table), samples, strict=True):
        assert_same(found, expected)


def test_tiles_that_are_views_of_a_page_are_carried_by_what_they_show() -> None:
    page = noise(5, 60, 80, 3)
    tiles = (page[:30, 40:], page[::2, ::-1])
    (found,) = samples_of(through_ipc(samples_table([Sample(ID, (tiles,))])))
    assert_same(found, Sample(ID, (tiles,)))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(
            arrays.arrays(
                np.uint8,
                st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])),
            ),
            min_size=1,
            max_size=5,
        ),
        max_size=3,
    )
)
def test_any_tiles_come_back(pages: list[list[Any]]) -> None:
    sample = Sample(ID, tuple(map(tuple, pages)))
    (found,) = samples_of(through_ipc(samples_table([sample])))
    assert_same(found, sample)


def test_unpacked_tiles_cannot_be_written_to() -> None:
    tiles = [noise(6, 4, 5, 1), noise(7, 3, 2, 3)]
    found = unpack(pa.py_buffer(pack(tiles)), [tile.shape for tile in tiles])
    for tile, expected_tile in zip(found, tiles, strict=True):
        assert np.array_equal(tile, expected_tile)
        with pytest.raises(ValueError, match="read-only"):
            tile[:] = 0


def test_answers_come_back_as_they_went() -> None:
    answers = [
        Answer(ID, GENERATION, 0.1, 1 / 3),
        Failed(ID, FAILURE),
        Answer(ID, Generation("", (), (), FinishReason.LENGTH, 0)),
    ]
    table = through_ipc(answers_table(answers))
    assert table.schema == ANSWERS
    found = answers_of(table)
    assert found == answers
    assert [dict(item.id.source) for item in found] == [dict(ID.source)] * 3


def test_log_probabilities_of_single_precision_are_exact() -> None:
    values = tuple(np.random.default_rng(0).normal(size=50).astype(np.float32).tolist())
    generation = Generation("x", tuple(range(50)), values, FinishReason.STOP, 1)
    (found,) = answers_of(through_ipc(answers_table([Answer(ID, generation)])))
    assert isinstance(found, Answer)
    assert found.generation.logprobs == values


def test_no_rows_are_a_table_of_no_rows() -> None:
    assert samples_of(through_ipc(samples_table([]))) == []
    assert answers_of(through_ipc(answers_table([]))) == []


@pytest.mark.parametrize(
    ("text", "carried"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udcff", "\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),  # a pair, as UTF-16 readers hand it over
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\x00é\u2028😀", "\x00é\u2028😀"),
    ],
)
def test_half_a_surrogate_pair_is_replaced_and_the_rest_kept(text: str, carried: str) -> None:
    """Arrow holds UTF-8 only, and PDFs do hold broken text."""
    sample = Sample(ID, ((noise(8, 2, 2, 1),),), ((Word(text, 0, 0, 1, 1), Word("b", 0, 0, 1, 1)),))
    (found,) = samples_of(through_ipc(samples_table([sample])))
    assert isinstance(found, Sample)
    assert [word.text for word in found.words[0]] == [carried, "b"]
    answer = Answer(ID, Generation(text, (1,), (0.0,), FinishReason.STOP, 1))
    (answered,) = answers_of(through_ipc(answers_table([answer])))
    assert isinstance(answered, Answer)
    assert answered.generation.text == carried
    failed = Failed(ID, Failure(StageName.GENERATE, FailureKind.MODEL_ERROR, text))
    for (back,) in (
        samples_of(through_ipc(samples_table([failed]))),
        answers_of(through_ipc(answers_table([failed]))),
    ):
        assert isinstance(back, Failed)
        assert back.failure.message == carried


def test_a_page_of_text_travels_far_smaller_than_its_pixels() -> None:
    page = Pillow.new("L", (693, 980), 255)
    draw = ImageDraw.Draw(page)
    for line in range(60):
        draw.text((40, 20 + 15 * line), f"Item {line}  {line * 37 % 101} x 12.{line:02d}  EUR", 0)
    tile = np.asarray(page)[:, :, None]
    assert len(pack([tile])) * 10 < tile.nbytes


def test_packing_takes_little_more_memory_than_what_is_packed() -> None:
    tiles = [np.zeros((512, 512, 3), np.uint8) for _ in range(20)]
    tracemalloc.start()
    packed = pack(tiles)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(packed) + tiles[0].nbytes
