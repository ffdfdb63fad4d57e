"""A family without weights, for tests and plumbing: valid answers that mean nothing.

It takes pages at the size of a full Idefics2 with image splitting, so that rendering, transport and
memory cost what they cost in a real job, and it writes bytes that the grammar allows, chosen by a
checksum of the tiles, of the prompt if there are none: the same page always gets the same answer.
Settings ride on the name: `fake?seconds=0.05` takes that long a sample, `fake?edge=224` makes
smaller pages, `fake?context=100` has a context of so many characters. Pages may do harm: with
`fake?dies_on=ff0000` one whose first pixel is red kills the process, and likewise with `hangs_on`,
`fails_on` (an exception) and `runs_out_on` (of memory). `tally=FILE` appends a line with the
checksum for each answer, which tells what was answered more than once.
"""

from __future__ import annotations

import os
import random
import signal
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from pipeline.conversation import Conversation, Slot
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import (
    Checkpoint,
    Constraint,
    ModelInput,
    ModelOutput,
    Placement,
    Vocabulary,
)
from pipeline.models.chat import TEXT_SLOT
from pipeline.models.context import answer_budget
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.records import FinishReason, Tiles

_STOP = 256
_TYPICAL = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_CLOSING = frozenset((*b'"]},', _STOP))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    while True:
        time.sleep(60)


def _fail() -> None:
    raise ValueError("this page was meant to fail")


def _run_out() -> None:
    raise MemoryError("this page was meant to run out of memory")


Harm = Callable[[], None]

_HARMS: Mapping[str, Harm] = {
    "dies_on": _die,
    "hangs_on": _hang,
    "fails_on": _fail,
    "runs_out_on": _run_out,
}


class FakeFamily:
    """Builds the fake halves."""

    def encoder(self, checkpoint: Checkpoint, settings: ModelSettings) -> Idefics2Encoder:
        """Return the encoder of Idefics2-8B with image splitting, or with another longest edge."""
        edge = int(_option(checkpoint, "edge", 980))
        splitting = settings.image_splitting
        return Idefics2Encoder(
            longest_edge=edge,
            shortest_edge=edge * 378 // 980,
            splitting=splitting is not False,
        )

    def prompt(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        conversation: Conversation,
        schema_id: str,
    ) -> str:
        """Return all that is said, with a placeholder an image."""
        del checkpoint, settings, schema_id
        said = {Slot.IMAGE: "<image>", Slot.TEXT: TEXT_SLOT}
        return "\n".join(
            "".join(said[part] if isinstance(part, Slot) else part for part in turn.parts)
            for turn in conversation
        )

    def load(
        self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement
    ) -> FakeModel:
        """Return the fake model; there is nothing to load."""
        del settings, placement
        tally = _settings(checkpoint).get("tally", [None])[0]
        context = int(_option(checkpoint, "context", 0)) or None
        return FakeModel(_option(checkpoint, "seconds", 0.0), _harms(checkpoint), tally, context)


class FakeModel:
    """Writes one byte a token; without a grammar it writes a checksum of the tiles."""

    def __init__(
        self,
        seconds: float = 0.0,
        harms: Mapping[str, Harm] | None = None,
        tally: str | None = None,
        context: int | None = None,
    ) -> None:
        self._seconds = seconds
        self._harms = harms or {}
        self._tally = tally
        self._context = context

    @property
    def vocabulary(self) -> Vocabulary:
        """All bytes, and a stop token."""
        return Vocabulary(
            tokens=(*(bytes([i]) for i in range(256)), b""),
            special_ids=(_STOP,),
            stop_ids=(_STOP,),
        )

    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        """Answer each input by itself; see `pipeline.models.base.Model.generate`."""
        time.sleep(self._seconds * len(inputs))
        for item in inputs if self._harms else ():
            if len(item.tiles) and (harm := self._harms.get(_first_pixel(item.tiles))):
                harm()
        checksums = [_checksum(item) for item in inputs]
        if self._tally is not None:
            lines = "".join(f"{checksum:08x}\n" for checksum in checksums)
            with Path(self._tally).open("a") as file:  # one write, which others' do not part
                file.write(lines)
        return [
            _answer(item, checksum, answer_budget(len(item.prompt), max_new_tokens, self._context))
            for item, checksum in zip(inputs, checksums, strict=True)
        ]


def _checksum(item: ModelInput) -> int:
    checksum = 0 if len(item.tiles) else zlib.crc32(item.prompt.encode())
    for page in item.tiles:
        for tile in page:
            checksum = zlib.crc32(tile.data, checksum)
    return checksum


def _answer(item: ModelInput, checksum: int, max_new_tokens: int) -> ModelOutput:
    if item.constraint is None:
        ids, reason = list(f"{checksum:08x}".encode()), FinishReason.STOP
    else:
        ids, reason = _write(item.constraint, random.Random(checksum), max_new_tokens)
    return ModelOutput(
        text=bytes(ids).decode(errors="replace"),
        token_ids=tuple(ids),
        logprobs=(0.0,) * len(ids),
        finish_reason=reason,
        prompt_tokens=len(item.prompt),
    )


def _write(
    constraint: Constraint, rng: random.Random, max_new_tokens: int
) -> tuple[list[int], FinishReason]:
    ids: list[int] = []
    while len(ids) < max_new_tokens:
        token = _choose(constraint.allowed(), rng)
        if token == _STOP:
            return ids, FinishReason.STOP
        constraint.accept(token)
        ids.append(token)
    return ids, FinishReason.LENGTH


def _choose(allowed: NDArray[np.bool_], rng: random.Random) -> int:
    """Pick an allowed byte: plain characters for a while, closing ones soon."""
    options = np.flatnonzero(allowed).tolist()
    closing = [token for token in options if token in _CLOSING]
    plain = [token for token in options if token in _TYPICAL]
    if closing and (not plain or rng.random() < 0.3):
        return rng.choice(closing)
    return rng.choice(plain or options)


def _harms(checkpoint: Checkpoint) -> dict[str, Harm]:
    """Return what to do, by the hexadecimal colour of a page's first pixel."""
    settings = _settings(checkpoint)
    return {
        colour.lower(): harm for key, harm in _HARMS.items() for colour in settings.get(key, ())
    }


def _settings(checkpoint: Checkpoint) -> dict[str, list[str]]:
    return parse_qs(checkpoint.location.partition("?")[2])


def _first_pixel(tiles: Tiles) -> str:
    pixel = next(page[-1][0, 0].tolist() for page in tiles)
    return bytes(pixel * 3 if len(pixel) == 1 else pixel).hex()


def _option(checkpoint: Checkpoint, key: str, default: float) -> float:
    values = _settings(checkpoint).get(key, [str(default)])
    try:
        return float(values[0])
    except ValueError as error:
        raise CheckpointError(f"model.name: {key} must be a number, not '{values[0]}'") from error
