"""A cheap look first, and a closer one at what it leaves in doubt.

Splitting an image shows the model five times as much of it, for five times the work, and most pages
do not need it. So an answer is first asked of the whole images alone; only where it is in doubt it
is asked again, of all tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace

from pipeline.engine.engine import Engine
from pipeline.engine.request import Request
from pipeline.errors import ItemError
from pipeline.records import MODEL_TIMES, FinishReason, Generation
from pipeline.tiles import LastTiles, tile_shapes

Valid = Callable[[str], bool]
"""Whether an answer's text is what was asked for."""

_SUMMED = (*MODEL_TIMES, "forced_tokens", "drafted_tokens", "passes")


class Doubt:
    """Judges first answers: `valid` by their text (None: any is), and certain if no token is
    improbable.

    A token's probability is among those that the grammar allowed; `least` is what it must have.
    """

    def __init__(self, valid: Valid | None, least: float) -> None:
        self._valid = valid
        self._least = math.log(least) if least > 0 else -math.inf

    def valid(self, generation: Generation) -> bool:
        """Return True if an answer is whole and valid. Never raises: that would lose the answer."""
        if generation.finish_reason is not FinishReason.STOP:
            return False
        try:
            return self._valid is None or self._valid(generation.text)
        except Exception:  # what cannot even be judged is not valid
            return False

    def __call__(self, generation: Generation) -> bool:
        """Return True if a first answer is to be asked again."""
        certain = all(logprob >= self._least for logprob in generation.logprobs)
        return not (certain and self.valid(generation))


def submit(engine: Engine, request: Request, doubt: Doubt) -> Future[Generation]:
    """Submit a request for a first look, and on doubt for a second; see `Engine.submit`.

    The second answer counts, unless it fails or is invalid and the first was not. Its times and
    counts are those of both.
    """
    result: Future[Generation] = Future()

    def after_first(future: Future[Generation]) -> None:
        if (error := future.exception()) is not None:
            _settle(result, error)
        elif doubt(first := future.result()):
            try:
                second = engine.submit(request)
            except RuntimeError as closed:  # meanwhile
                _settle(result, first if doubt.valid(first) else closed)
            else:
                second.add_done_callback(lambda done: after_second(first, done))
        else:
            _settle(result, first)

    def after_second(first: Generation, future: Future[Generation]) -> None:
        error = future.exception()
        if error is not None and not isinstance(error, ItemError):
            _settle(result, error)
        elif (error is not None or not doubt.valid(future.result())) and doubt.valid(first):
            _settle(result, replace(first, looks=2))
        else:
            _settle(result, error or _both(first, future.result()))

    if all(len(page) <= 1 for page in tile_shapes(request.all_tiles)):
        return engine.submit(request)  # there is nothing more to show
    cheap = replace(
        request,
        tiles=LastTiles(request.tiles),
        examples=LastTiles(request.examples),
        examples_key=f"{request.examples_key} whole",
    )
    engine.submit(cheap).add_done_callback(after_first)
    return result


def _both(first: Generation, second: Generation) -> Generation:
    sums = {name: getattr(first, name) + getattr(second, name) for name in _SUMMED}
    return replace(second, looks=2, **sums)


def _settle(future: Future[Generation], outcome: Generation | BaseException) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
