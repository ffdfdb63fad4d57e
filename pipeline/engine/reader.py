"""Prompts in: images are encoded and prompts run, before the rows join the running batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from pipeline.engine.backoff import Backoff
from pipeline.engine.cache import KeysValues, reading
from pipeline.engine.choose import Choice, Chooser
from pipeline.engine.row import Row
from pipeline.models.devices import device_errors, index_tensor
from pipeline.models.stepping import SteppingModel


@dataclass(frozen=True, slots=True)
class Read:
    """Rows whose prompts were read: what was chosen behind them, and what the cache is to keep."""

    rows: Sequence[Row]
    choices: Sequence[Choice]
    keys_values: KeysValues


class Reader:
    """Runs images and prompts, in one thread at a time.

    Rows never see each other, so what is read of a row does not depend on its company.
    """

    def __init__(self, model: SteppingModel, prefill_tokens: int, threads: int) -> None:
        """`prefill_tokens` bounds the prompts' tokens of one pass; `threads` compute masks."""
        self._model = model
        self._decoder = model.decoder
        self._tokens_at_once = Backoff(prefill_tokens, steps=64)
        self._chooser = Chooser(model, threads)
        self._prefixes: dict[tuple[int, ...], KeysValues] = {}

    def alike(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Part rows into groups whose prompts run in one pass: of one length and beginning."""
        groups: dict[tuple[int, int, tuple[int, ...]], list[Row]] = {}
        for row in rows:
            prompt = row.prompt
            key = len(prompt.ids), len(row.pending), prompt.ids[: prompt.shared]
            groups.setdefault(key, []).append(row)
        for (length, _, _), members in groups.items():
            most = max(1, self._tokens_at_once.now // length)
            for start in range(0, len(members), most):
                yield members[start : start + most]

    @torch.inference_mode()
    def read(self, rows: Sequence[Row]) -> Read:
        """Encode the images of rows that are `alike`, run their prompts, choose their first tokens.

        If it fails, it may be called anew for fewer rows. Raises MemoryError if memory is short.
        On a GPU some of the time that images take is counted with the prompts, which wait for them.
        """
        started = time.perf_counter()
        tiles = [tile for row in rows for page in row.request.tiles for tile in page]
        length = len(rows[0].prompt.ids)
        with self._tokens_at_once.trying(len(rows) * length, least=length), device_errors():
            features = self._model.features(tiles)
            seen = time.perf_counter()
            read = self._prefill(rows, features)
        done = time.perf_counter()
        for row in rows:
            row.started, row.cached = started, len(row.prompt.ids)
            row.vision_s, row.prefill_s = (seen - started) / len(rows), (done - seen) / len(rows)
        return read

    def _prefill(self, rows: Sequence[Row], features: Sequence[Tensor]) -> Read:
        first = rows[0].prompt
        start = first.shared
        # What the grammar forces at the beginning is read along with the prompt.
        texts = [[*row.prompt.ids[start:], *row.pending] for row in rows]
        count = len(texts[0])
        embedded = self._decoder.embed(self._index(list(chain.from_iterable(texts))))
        if features:
            embedded[self._index(_image_places(rows, start, count))] = torch.cat(list(features)).to(
                embedded.dtype
            )
        prefix = self._prefix(first.ids[:start])
        attend, keys_values = reading(self._decoder.shape, len(rows), count, prefix)
        hidden = self._decoder.forward(
            embedded,
            self._index(list(range(start, start + count)) * len(rows)),
            attend,
            self._index([count * (place + 1) - 1 for place in range(len(rows))]),
        )
        return Read(rows, self._chooser.choose(rows, hidden), keys_values)

    def _prefix(self, ids: tuple[int, ...]) -> KeysValues:
        """Keys and values of what all prompts begin with, computed once."""
        if ids and ids not in self._prefixes:
            attend, keys_values = reading(self._decoder.shape, 1, len(ids), [])
            places = self._index(list(range(len(ids))))
            self._decoder.forward(self._decoder.embed(self._index(list(ids))), places, attend)
            self._prefixes[ids] = keys_values
        return self._prefixes[ids] if ids else []

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return index_tensor(numbers, self._decoder.shape.device)


def _image_places(rows: Sequence[Row], start: int, count: int) -> list[int]:
    """Which of the rows' tokens, `count` each from `start` on, stand for features of images."""
    return [
        count * number + place
        for number, row in enumerate(rows)
        for place, is_image in enumerate(row.prompt.is_image[start:])
        if is_image
    ]
