"""Prompts in: images are encoded and prompts run, before the rows join the running batch."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.engine.backoff import Backoff
from pipeline.engine.cache import KeysValues, reading
from pipeline.engine.choose import Choice, Chooser
from pipeline.engine.row import Row
from pipeline.models.devices import device_errors, index_tensor
from pipeline.models.stepping import SteppingModel

_Beginning = tuple[str, tuple[int, ...]]
"""What tells beginnings of prompts apart: the key of its examples' images, and its tokens."""

_MOST_KEPT = 8

K = TypeVar("K")
V = TypeVar("V")


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
        self._prefixes: OrderedDict[_Beginning, KeysValues] = OrderedDict()
        self._seen: OrderedDict[str, Tensor] = OrderedDict()

    def alike(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Part rows into groups whose prompts run in one pass: of one length and beginning."""
        groups: dict[tuple[int, int, _Beginning], list[Row]] = {}
        for row in rows:
            key = len(row.prompt.ids), len(row.pending), _beginning(row)
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
        start = rows[0].prompt.shared
        # What the grammar forces at the beginning is read along with the prompt.
        texts = [[*row.prompt.ids[start:], *row.pending] for row in rows]
        count = len(texts[0])
        embedded = self._decoder.embed(self._index(list(chain.from_iterable(texts))))
        if features:
            embedded[self._index(_image_places(rows, start, count))] = torch.cat(list(features)).to(
                embedded.dtype
            )
        prefix = self._prefix(rows[0])
        attend, keys_values = reading(self._decoder.shape, len(rows), count, prefix)
        hidden = self._decoder.forward(
            embedded,
            self._index(list(range(start, start + count)) * len(rows)),
            attend,
            self._index([count * (place + 1) - 1 for place in range(len(rows))]),
        )
        return Read(rows, self._chooser.choose(rows, hidden), keys_values)

    def _prefix(self, row: Row) -> KeysValues:
        """Keys and values of what prompts begin with, examples' images included, computed once."""
        key = _, ids = _beginning(row)
        if not ids:
            return []
        if key not in self._prefixes:
            embedded = self._decoder.embed(self._index(list(ids)))
            if row.request.examples:
                shown = [place for place in range(len(ids)) if row.prompt.is_image[place]]
                embedded[self._index(shown)] = self._examples(row).to(embedded.dtype)
            attend, keys_values = reading(self._decoder.shape, 1, len(ids), [])
            self._decoder.forward(embedded, self._index(list(range(len(ids)))), attend)
            _keep(self._prefixes, key, keys_values)
        self._prefixes.move_to_end(key)
        return self._prefixes[key]

    def _examples(self, row: Row) -> Tensor:
        """Features of the examples' images, one after another, encoded once."""
        key = row.request.examples_key
        if key not in self._seen:
            tiles = [tile for page in row.request.examples for tile in page]
            _keep(self._seen, key, torch.cat(self._model.features(tiles)))
        return self._seen[key]

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return index_tensor(numbers, self._decoder.shape.device)


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


def _beginning(row: Row) -> _Beginning:
    return row.request.examples_key, row.prompt.ids[: row.prompt.shared]


def _image_places(rows: Sequence[Row], start: int, count: int) -> list[int]:
    """Which of the rows' tokens, `count` each from `start` on, stand for features of images."""
    return [
        count * number + place
        for number, row in enumerate(rows)
        for place, is_image in enumerate(row.prompt.is_image[start:])
        if is_image
    ]
