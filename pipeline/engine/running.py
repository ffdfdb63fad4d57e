"""The running batch: prompts in, one step after another, all rows together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.cache import Prefix, SlotCache
from pipeline.engine.choose import choose
from pipeline.engine.grammar import Masks
from pipeline.engine.memory import MemoryPlan, free_bytes, plan_memory
from pipeline.engine.row import Row
from pipeline.models.devices import memory_errors
from pipeline.models.stepping import SteppingModel


class Choice(NamedTuple):
    """What a row is to `take`."""

    ids: list[int]
    logprobs: list[float]


class RunningBatch:
    """Runs a model over rows in slots.

    A call changes nothing of the rows but what a second call sets again: if it fails, it may be
    made anew for fewer rows.

    Rows never see each other, so a row's answer does not depend on its company.
    """

    def __init__(self, model: SteppingModel, slots: int, prefill_tokens: int) -> None:
        """`slots` rows at most, fewer if memory is short: `plan` tells, once rows have joined.

        `prefill_tokens` bounds the prompts' tokens of one pass.
        """
        self._model = model
        self._decoder = model.decoder
        self.slots = slots
        self.plan: MemoryPlan | None = None
        self._prefill_tokens = prefill_tokens
        self._vocabulary_size = len(model.vocabulary.tokens)
        self._masks = Masks(self._vocabulary_size, model.never, torch.get_num_threads())
        self._cache = SlotCache(self._decoder.shape, slots, 0)
        self._prefixes: dict[tuple[int, ...], Prefix] = {}

    def make_room(self, length: int) -> None:
        """Provide slots of so many tokens. Raises MemoryError if there is no room for them."""
        if length <= self._cache.length:
            return
        shape = self._decoder.shape
        plan = plan_memory(self.slots, length, shape.bytes_a_token, free_bytes(shape.device))
        if self._cache.length == 0:
            self.slots = plan.slots
        elif plan.slots < self.slots:  # old and new are held together for a moment
            raise MemoryError(f"no room for rows of {length} tokens: {plan}")
        self.plan = plan
        self._cache = self._cache.resized(self.slots, length)

    @torch.inference_mode()
    def move(self, row: Row, slot: int) -> None:
        """Copy what is kept of a row to a free slot."""
        self._cache.move(row.slot, slot, row.cached)

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> list[Choice]:
        """Encode the rows' images, run their prompts, and choose their first tokens.

        The prompts must be `alike`.
        """
        started = time.perf_counter()
        tiles = [tile for row in rows for page in row.request.tiles for tile in page]
        try:
            with memory_errors():
                features = self._model.features(tiles)
                seen = time.perf_counter()
                choices = self._prefill(rows, features)
        except MemoryError:
            # Those that join later do so in smaller groups.
            self._prefill_tokens = max(1, len(rows) * len(rows[0].prompt.ids) // 2)
            raise
        done = time.perf_counter()
        for row in rows:
            row.started, row.cached = started, len(row.prompt.ids)
            row.vision_s, row.prefill_s = (seen - started) / len(rows), (done - seen) / len(rows)
        return choices

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> list[Choice]:
        """Run the rows' pending tokens and guesses, and choose what comes next."""
        started = time.perf_counter()
        for row in rows:
            row.look_ahead()
        tokens = [row.asked for row in rows]
        positions = [
            range(row.cached, row.cached + len(asked))
            for row, asked in zip(rows, tokens, strict=True)
        ]
        with memory_errors():
            hidden = self._decoder.forward(
                self._decoder.embed(self._index(list(chain.from_iterable(tokens)))),
                self._index(list(chain.from_iterable(positions))),
                self._cache.step([row.slot for row in rows], positions),
                self._index(_wanted(rows)),
            )
            choices = self._choose(rows, hidden)
        share = (time.perf_counter() - started) / len(rows)
        for row in rows:
            row.decode_s += share
        return choices

    def _prefill(self, rows: Sequence[Row], features: Sequence[Tensor]) -> list[Choice]:
        first = rows[0].prompt
        start = first.shared
        prefix = self._prefix(first.ids[:start])
        # What the grammar forces at the beginning is read along with the prompt.
        texts = [[*row.prompt.ids[start:], *row.pending] for row in rows]
        count = len(texts[0])
        embedded = self._decoder.embed(self._index(list(chain.from_iterable(texts))))
        if features:
            embedded[self._index(_image_places(rows, start, count))] = torch.cat(list(features)).to(
                embedded.dtype
            )
        hidden = self._decoder.forward(
            embedded,
            self._index(list(range(start, start + count)) * len(rows)),
            self._cache.prefill([row.slot for row in rows], count, prefix),
            self._index([count * (place + 1) - 1 for place in range(len(rows))]),
        )
        return self._choose(rows, hidden)

    def _prefix(self, ids: tuple[int, ...]) -> Prefix | None:
        """Keys and values of what all prompts begin with, computed once."""
        if not ids:
            return None
        if ids not in self._prefixes:
            scratch = SlotCache(self._decoder.shape, 1, len(ids))
            self._decoder.forward(
                self._decoder.embed(self._index(list(ids))),
                self._index(list(range(len(ids)))),
                scratch.prefill([0], len(ids), None),
            )
            self._prefixes[ids] = scratch.prefix(0, len(ids))
        return self._prefixes[ids]

    def _choose(self, rows: Sequence[Row], hidden: Tensor) -> list[Choice]:
        """Return what is chosen behind each row's pending tokens, and behind each guess."""
        logits = self._decoder.logits(hidden)
        # A device other than the CPU is at work until the logits are asked for.
        packed = self._masks.packed([(row.grammar, row.draft) for row in rows])
        ids, logprobs = choose(logits, packed, self._vocabulary_size)
        ends = np.cumsum([1 + len(row.draft) for row in rows]).tolist()
        return [
            Choice(ids[start:end], logprobs[start:end])
            for start, end in zip([0, *ends], ends, strict=False)
        ]

    def alike(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Part rows into groups whose prompts run in one pass: of one length and beginning."""
        groups: dict[tuple[int, int, tuple[int, ...]], list[Row]] = {}
        for row in rows:
            prompt = row.prompt
            key = len(prompt.ids), len(row.pending), prompt.ids[: prompt.shared]
            groups.setdefault(key, []).append(row)
        for (length, _, _), members in groups.items():
            most = max(1, self._prefill_tokens // length)
            for start in range(0, len(members), most):
                yield members[start : start + most]

    def _index(self, numbers: Sequence[int]) -> Tensor:
        device = self._decoder.shape.device
        return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)


def _wanted(rows: Sequence[Row]) -> list[int]:
    """Which of the step's tokens something is chosen behind: a row's last pending, and guesses."""
    wanted: list[int] = []
    at = 0
    for row in rows:
        n_pending, n_draft = len(row.pending), len(row.draft)
        wanted += range(at + n_pending - 1, at + n_pending + n_draft)
        at += n_pending + n_draft
    return wanted


def _image_places(rows: Sequence[Row], start: int, count: int) -> list[int]:
    """Which of the rows' tokens, `count` each from `start` on, stand for features of images."""
    return [
        count * number + place
        for number, row in enumerate(rows)
        for place, is_image in enumerate(row.prompt.is_image[start:])
        if is_image
    ]
