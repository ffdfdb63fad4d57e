"""The running batch: one step after another, all rows together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

import torch
from torch import Tensor

from pipeline.engine.cache import SlotCache
from pipeline.engine.choose import Choice, Chooser
from pipeline.engine.graphs import FixedSteps
from pipeline.engine.memory import MemoryPlan, plan_memory
from pipeline.engine.reader import Read
from pipeline.engine.row import Row
from pipeline.models.devices import device_errors, free_bytes, index_tensor
from pipeline.models.stepping import SteppingModel

_ROUND = 64
"""Slots have whole multiples of so many tokens: a prompt a little longer asks for no others."""


class RunningBatch:
    """Runs a model over rows in slots, whose prompts a `Reader` has read.

    A step changes nothing of the rows but what a second call sets again: if it fails, it may be
    made anew for fewer rows.

    Rows never see each other, so a row's answer does not depend on its company.
    """

    def __init__(
        self, model: SteppingModel, slots: int, threads: int, *, fixed_steps: bool = False
    ) -> None:
        """`slots` rows at most, fewer if memory is short: `plan` tells, once there is room.

        `threads` compute masks; for `fixed_steps` see `pipeline.engine.graphs`.
        """
        self._decoder = model.decoder
        self._chooser = Chooser(model, threads)
        self._wanted = self.slots = slots
        self.plan: MemoryPlan | None = None
        self._cache = SlotCache(self._decoder.shape, slots, 0)
        self._fixed_steps = fixed_steps
        self._fixed: FixedSteps | None = None

    def make_room(self, length: int, *, keep: bool) -> None:
        """Provide slots of so many tokens; with `keep` as many as before, with what they hold.

        Raises MemoryError if there is no room for them.
        """
        length = self._rounded(length)
        if length <= self._cache.length:
            return
        shape = self._decoder.shape
        free = free_bytes(shape.device)
        if not keep:
            free += self.slots * self._cache.length * shape.bytes_a_token
        plan = plan_memory(self.slots, length, shape.bytes_a_token, free)
        if keep and plan.slots < self.slots:  # old and new are held together for a moment
            raise MemoryError(f"no room for rows of {length} tokens: {plan}")
        with device_errors():
            if keep:
                self._cache = self._cache.lengthened(length)
            else:
                self._renew(plan)
        self._follow(plan)

    def shorten(self, length: int) -> None:
        """Provide more slots, of so many tokens, if these are twice as long and fewer than wanted.

        None may be in use, or be promised to rows that wait.
        """
        length, shape = self._rounded(length), self._decoder.shape
        if self.slots == self._wanted or 2 * length > self._cache.length:
            return
        own = self.slots * self._cache.length * shape.bytes_a_token
        free = free_bytes(shape.device) + own
        plan = plan_memory(self._wanted, length, shape.bytes_a_token, free)
        if plan.slots > self.slots:
            with suppress(MemoryError), device_errors():
                self._renew(plan)
                self._follow(plan)

    def _rounded(self, length: int) -> int:
        # Fixed steps need a position that no row uses.
        return -(-(length + self._fixed_steps) // _ROUND) * _ROUND

    def _follow(self, plan: MemoryPlan) -> None:
        self.plan, self.slots = plan, plan.slots
        if self._fixed_steps:
            self._fixed = FixedSteps(self._decoder, self._cache)

    def _renew(self, plan: MemoryPlan) -> None:
        """Replace the cache by an empty one; if that fails, by one as large as it was."""
        shape, slots, length = self._decoder.shape, self.slots, self._cache.length
        self._fixed, self._cache = None, SlotCache(shape, slots, 0)
        try:
            self._cache = SlotCache(shape, plan.slots, plan.length)
        except Exception:
            self._cache = SlotCache(shape, slots, length)  # rows wait that were promised it
            raise

    @torch.inference_mode()
    def move(self, row: Row, slot: int) -> None:
        """Copy what is kept of a row to a free slot."""
        self._cache.move(row.slot, slot, row.cached)

    @torch.inference_mode()
    def clear(self, row: Row) -> None:
        """Forget what a row that failed left in its slot."""
        self._cache.clear(row.slot)

    @torch.inference_mode()
    def place(self, read: Read) -> None:
        """Put into their slots what was read of rows. Raises MemoryError if memory is short."""
        with device_errors():
            self._cache.place([row.slot for row in read.rows], read.keys_values)

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> list[Choice]:
        """Run the rows' pending tokens and guesses, and choose what comes next."""
        started = time.perf_counter()
        for row in rows:
            row.look_ahead()
        with device_errors():
            choices = self._chooser.choose(rows, self._forward(rows))
        share = (time.perf_counter() - started) / len(rows)
        for row in rows:
            row.decode_s += share
        return choices

    def _forward(self, rows: Sequence[Row]) -> Tensor:
        slots = [row.slot for row in rows]
        tokens = [row.asked for row in rows]
        wanted = self._index(_wanted(rows))
        if self._fixed is not None and self._fixed.fits(tokens):
            return self._fixed.run(slots, tokens, [row.cached for row in rows])[wanted]
        positions = [
            range(row.cached, row.cached + len(asked))
            for row, asked in zip(rows, tokens, strict=True)
        ]
        return self._decoder.forward(
            self._decoder.embed(self._index(list(chain.from_iterable(tokens)))),
            self._index(list(chain.from_iterable(positions))),
            self._cache.step(slots, positions),
            wanted,
        )

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return index_tensor(numbers, self._decoder.shape.device)


def _wanted(rows: Sequence[Row]) -> list[int]:
    """Which of the step's tokens something is chosen behind: a row's last pending, and guesses."""
    wanted: list[int] = []
    at = 0
    for row in rows:
        n_pending, n_draft = len(row.pending), len(row.draft)
        wanted += range(at + n_pending - 1, at + n_pending + n_draft)
        at += n_pending + n_draft
    return wanted
