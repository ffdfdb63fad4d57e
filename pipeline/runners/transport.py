"""Samples and answers as Arrow rows, for runners that carry them between processes.

Tiles travel as one zstd-compressed run of bytes a sample: uint8, grey pages with one channel, and
are unpacked when the model takes them. Raw tiles would cost less CPU on one machine, but ten times
the memory and network (docs/PERFORMANCE.md): packed, what is under way between stages stays small
whatever the pages show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.lake.plans import FAILURE, failure_of, failure_row
from pipeline.records import (
    MODEL_COUNTS,
    MODEL_TIMES,
    Answer,
    Failed,
    FinishReason,
    Generation,
    Image,
    Sample,
    SampleId,
    Word,
)

_IDENTITY = [
    pa.field("document_id", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("n_pages", pa.int32(), nullable=False),
    pa.field("page_numbers", pa.list_(pa.int32()), nullable=False),
    pa.field("source", pa.map_(pa.string(), pa.string()), nullable=False),
    pa.field("failure", FAILURE),
    pa.field("rasterize_s", pa.float64()),
    pa.field("encode_s", pa.float64()),
]
_WORD = pa.struct(
    [
        ("text", pa.string()),
        ("left", pa.float32()),
        ("top", pa.float32()),
        ("right", pa.float32()),
        ("bottom", pa.float32()),
    ]
)
SAMPLES = pa.schema(
    [
        *_IDENTITY,
        pa.field("shapes", pa.list_(pa.list_(pa.list_(pa.int32())))),  # pages, tiles, (H, W, C)
        pa.field("pixels", pa.large_binary()),
        pa.field("words", pa.list_(pa.list_(_WORD))),
    ]
)
ANSWERS = pa.schema(
    [
        *_IDENTITY,
        pa.field("attempts", pa.int32()),
        pa.field("text", pa.large_string()),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("logprobs", pa.list_(pa.float32())),
        pa.field("finish_reason", pa.string()),
        pa.field("prompt_tokens", pa.int32()),
        *(pa.field(name, pa.float64()) for name in MODEL_TIMES),
        *(pa.field(name, pa.int32()) for name in MODEL_COUNTS),
    ]
)

_CODEC = pa.Codec("zstd")


def samples_table(samples: Iterable[Sample | Failed]) -> pa.Table:
    """Return samples as rows of `SAMPLES`, packing each as it comes."""
    return pa.Table.from_pylist([_sample_row(sample) for sample in samples], schema=SAMPLES)


def samples_of(table: pa.Table) -> list[Sample | Failed]:
    """Read rows of `samples_table` back."""
    packed = table.column("pixels")
    rows = table.drop_columns(["pixels"]).to_pylist(maps_as_pydicts="strict")
    return [_sample(row, pixels) for row, pixels in zip(rows, packed, strict=True)]


def answers_table(answers: Sequence[Answer | Failed]) -> pa.Table:
    """Return answers as rows of `ANSWERS`."""
    return pa.Table.from_pylist([_answer_row(answer) for answer in answers], schema=ANSWERS)


def answers_of(table: pa.Table) -> list[Answer | Failed]:
    """Read rows of `answers_table` back."""
    return [_answer(row) for row in table.to_pylist(maps_as_pydicts="strict")]


class PackedTiles(Sequence[Sequence[Image]]):
    """`pipeline.records.Tiles` that hold one sample's pixels packed until they are read.

    Every read unpacks all pages: read by iterating, once.
    """

    def __init__(self, packed: pa.Buffer, shapes: Sequence[Sequence[Sequence[int]]]) -> None:
        self._packed = packed
        self.shapes = [[tuple(shape) for shape in page] for page in shapes]

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[Sequence[Image]]:
        tiles = iter(unpack(self._packed, [shape for page in self.shapes for shape in page]))
        for page in self.shapes:
            yield [next(tiles) for _ in page]

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


def pack(tiles: Sequence[Image]) -> bytes:
    """Compress tiles into one run of bytes, without joining them first: documents are large."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, _CODEC.name) as stream:
        for tile in tiles:
            stream.write(np.ascontiguousarray(tile).data)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(packed: pa.Buffer, shapes: Sequence[Sequence[int]]) -> list[Image]:
    """Undo `pack`; the tiles share one buffer and cannot be written to."""
    pixels = np.frombuffer(_CODEC.decompress(packed, sum(map(prod, shapes))), np.uint8)
    pixels.flags.writeable = False
    ends = np.cumsum([prod(shape) for shape in shapes])
    return [
        pixels[end - prod(shape) : end].reshape(shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


def _utf8(text: str) -> str:
    """Replace halves of surrogate pairs, which broken PDFs hold and Arrow does not, by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _sample_row(sample: Sample | Failed) -> dict[str, Any]:
    if isinstance(sample, Failed):
        return _failed_row(sample)
    return {
        **asdict(sample.id),
        "rasterize_s": sample.rasterize_s,
        "encode_s": sample.encode_s,
        "shapes": [[tile.shape for tile in page] for page in sample.tiles],
        "pixels": pack([tile for page in sample.tiles for tile in page]),
        "words": [
            [{**asdict(word), "text": _utf8(word.text)} for word in page] for page in sample.words
        ],
    }


def _sample(row: Mapping[str, Any], pixels: pa.LargeBinaryScalar) -> Sample | Failed:
    if (failed := _failed(row)) is not None:
        return failed
    return Sample(
        id=_identity(row),
        tiles=PackedTiles(pixels.as_buffer(), row["shapes"]),
        words=tuple(tuple(Word(**word) for word in page) for page in row["words"]),
        rasterize_s=row["rasterize_s"],
        encode_s=row["encode_s"],
    )


def _answer_row(answer: Answer | Failed) -> dict[str, Any]:
    if isinstance(answer, Failed):
        return _failed_row(answer)
    return {
        **asdict(answer.id),
        **asdict(answer.generation),
        "text": _utf8(answer.generation.text),
        "rasterize_s": answer.rasterize_s,
        "encode_s": answer.encode_s,
        "attempts": answer.attempts,
    }


def _answer(row: Mapping[str, Any]) -> Answer | Failed:
    if (failed := _failed(row)) is not None:
        return failed
    generation = Generation(
        text=row["text"],
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        finish_reason=FinishReason(row["finish_reason"]),
        prompt_tokens=row["prompt_tokens"],
        **{name: row[name] for name in (*MODEL_TIMES, *MODEL_COUNTS)},
    )
    return Answer(_identity(row), generation, row["rasterize_s"], row["encode_s"], row["attempts"])


def _failed_row(failed: Failed) -> dict[str, Any]:
    failure = replace(failed.failure, message=_utf8(failed.failure.message))
    return {**asdict(failed.id), "failure": failure_row(failure)}


def _failed(row: Mapping[str, Any]) -> Failed | None:
    failure = failure_of(row["failure"])
    return None if failure is None else Failed(_identity(row), failure)


def _identity(row: Mapping[str, Any]) -> SampleId:
    return SampleId(
        document_id=row["document_id"],
        uri=row["uri"],
        n_pages=row["n_pages"],
        page_numbers=tuple(row["page_numbers"]),
        source=row["source"],
    )
