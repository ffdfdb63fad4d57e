"""The Family protocol: all that the rest of the house knows of a model family.

A family has two halves, because they run on different machines: the *processor half* (`PageEncoder`
and the prompt: CPU, no weights, no torch) and the *model half* (`Model`). Everything odd about a
family stays behind them. `pipeline.models.families` finds the family of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.conversation import Conversation
from pipeline.model_settings import Model as ModelSettings
from pipeline.records import FinishReason, Image, Tiles


@dataclass(frozen=True, slots=True)
class PagePlan:
    """How to draw a page: `width` x `height` pixels, then white to the right and below.

    The canvas is never smaller than the drawing; all four are at least 1.
    """

    width: int
    height: int
    canvas_width: int
    canvas_height: int


PlanPage = Callable[[float, float, bool], PagePlan]
"""(width, height, scalable) -> PagePlan. Points for a PDF page (scalable), pixels for an image."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model the job names, pinned.

    `location` is a local directory, a hub id, or says that it comes with the package: all but the
    first hold on other machines too. `revision` is the hub's commit hash, or for a directory a hash
    of its files. `canvas` is the fixed (width, height) in pixels that the checkpoint reads, None
    for native aspect ratios; `schemas` are the only schema ids it was trained to answer, None for
    any; `compact_json` says that it writes JSON without spaces. `remote_code` lets Python code run
    that it brings along.
    """

    name: str
    family: str
    location: str
    revision: str
    canvas: tuple[int, int] | None = None
    schemas: tuple[str, ...] | None = None
    compact_json: bool = False
    remote_code: bool = False


class PageEncoder(Protocol):
    """The processor half. Picklable, and cheap to unpickle: it travels to every CPU task."""

    def plan_page(self, width: float, height: float, scalable: bool) -> PagePlan:
        """Say at which size to draw a page; see `PlanPage`."""
        ...

    def encode(self, image: Image) -> tuple[Image, ...]:
        """Split and resize one page image into the uint8 tiles that the vision tower reads.

        The whole page is the last of them: a first look is at that alone. The tiles' shapes are
        all that the model half is told of how the page was split.
        """
        ...


class Constraint(Protocol):
    """The grammar's state for one answer under way."""

    def allowed(self) -> NDArray[np.bool_]:
        """Bool of shape (vocabulary size,): which tokens may come next. Never all False."""
        ...

    def accept(self, token_id: int) -> None:
        """Move past a token that `allowed` permitted."""
        ...


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One prompt: text with one placeholder an image, and each image's tiles, in order."""

    prompt: str
    tiles: Tiles
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """One answer; `logprobs` are natural logarithms among the tokens that were allowed."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a grammar needs to know of a tokenizer.

    `tokens[i]` is the UTF-8 text that token i stands for, b"" if it stands for none; `backend` is
    the fast tokenizer's own JSON where the grammar library can read it, which is quicker and
    knows how the tokenizer joins tokens.
    """

    tokens: tuple[bytes, ...]
    special_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    backend: str | None = None


class DeviceLost(RuntimeError):
    """The device failed, and fails from now on whatever it is asked: no sample is to blame."""


class Model(Protocol):
    """The model half, loaded and on its device. Not thread-safe: one caller at a time."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer as a grammar sees it."""
        ...

    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        """Answer a batch, greedily; one output an input, in order.

        Raises
        ------
        MemoryError
            If the device has too little memory for the batch.
        """
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs: `device` is "cpu" or "cuda"; `threads` None leaves torch its default.

    A model that `learns` is left as its stock classes made it, so that it can be trained.
    """

    device: str = "cpu"
    threads: int | None = None
    learns: bool = False


class Family(Protocol):
    """A model family: how to build both halves for a checkpoint."""

    def encoder(self, checkpoint: Checkpoint, settings: ModelSettings) -> PageEncoder:
        """Build the processor half. Raises CheckpointError if the settings do not fit."""
        ...

    def prompt(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        conversation: Conversation,
        schema_id: str,
    ) -> str:
        """Return the conversation as the checkpoint wants it, one placeholder an image.

        `pipeline.models.chat.TEXT_SLOT` stands in it where a page's own text goes.

        Raises
        ------
        UserError
            If the checkpoint cannot be asked so, or a text would be taken for an image.
        """
        ...

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement) -> Model:
        """Load the weights where `placement` says. Raises CheckpointError."""
        ...
