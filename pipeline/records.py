"""The nouns: what travels from stage to stage.

::

    Document -> Plan -> Window -> Page -> Sample -> Generation -> PageResult -> DocumentResult
                    (in Shards)

Everything is frozen. A failure of an item is a value (`Failure`) that travels in the item's place,
so a stage yields `Page | Failure`, `Sample | Failed`, `Answer | Failed`.
The Arrow schemas of the published tables are in `pipeline.lake.tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""A page or tile: uint8 of shape (height, width, channels); channels is 1 (grey) or 3 (RGB)."""

Tiles = Sequence[Sequence[Image]]
"""The tiles of a sample, page by page. Read once, and let go: they may be unpacked as they are."""


class MediaType(StrEnum):
    """What a document's bytes are taken to be; settled by content when the file is opened."""

    PDF = "application/pdf"
    PNG = "image/png"
    JPEG = "image/jpeg"
    WEBP = "image/webp"
    TIFF = "image/tiff"


class StageName(StrEnum):
    """The stages that can fail an item."""

    DISCOVER = "discover"
    RASTERIZE = "rasterize"
    ENCODE = "encode"
    GENERATE = "generate"
    PARSE = "parse"
    ASSEMBLE = "assemble"


class State(StrEnum):
    """How a page or document ended. Every one ends in exactly one of these."""

    OK = "ok"  # the record validates against the schema
    TRUNCATED = "truncated"  # the token budget ended an answer
    PARTIAL = "partial"  # documents only: some pages failed, others did not
    FAILED = "failed"


class FailureKind(StrEnum):
    """Why an item failed. A closed list: `pipeline.remedies` says what a user does about each."""

    SOURCE_MISSING = "source_missing"
    SOURCE_CHANGED = "source_changed"
    SOURCE_TOO_LARGE = "source_too_large"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    ENCRYPTED = "encrypted"
    EMPTY = "empty"
    TOO_MANY_PAGES = "too_many_pages"
    RENDER_TIMEOUT = "render_timeout"
    RENDER_CRASH = "render_crash"
    RENDER_MEMORY = "render_memory"
    OUT_OF_MEMORY = "out_of_memory"
    MODEL_ERROR = "model_error"
    MODEL_CRASH = "model_crash"
    MODEL_TIMEOUT = "model_timeout"
    STAGE_CRASH = "stage_crash"
    STAGE_TIMEOUT = "stage_timeout"
    TRUNCATED = "truncated"
    INVALID_JSON = "invalid_json"
    SCHEMA_VIOLATION = "schema_violation"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no result. `message` is one line of printable text."""

    stage: StageName
    kind: FailureKind
    message: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """One input file as discover lists it, unopened.

    `modified` is the modification time in nanoseconds, as text; `source` holds a manifest's other
    columns, carried through to the tables.
    """

    uri: str
    size: int
    modified: str
    media_type: MediaType
    source: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run will do with one document: the independent count that rows are checked against.

    `document_id` is the sha256 of the content in hex, None when the bytes could not be read.
    `n_pages` is None when the document could not be opened. `page_numbers` (from 1) are the pages
    selected. A plan with a `failure` gets a documents row and no pages rows.
    """

    document: Document
    document_id: str | None
    n_pages: int | None
    page_numbers: tuple[int, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A fixed run of one document's pages, drawn by one task; of one sample's, if samples are
    documents.

    `size` and `modified` are the document's as planned: a file that no longer matches has changed.
    """

    document_id: str
    uri: str
    size: int
    modified: str
    n_pages: int
    page_numbers: tuple[int, ...]
    source: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shard:
    """The windows that one task draws, and one commit writes: a bounded number of pages."""

    windows: tuple[Window, ...]

    @property
    def n_pages(self) -> int:
        """How many pages the shard draws."""
        return sum(len(window.page_numbers) for window in self.windows)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text layer; the box is in pixels of the page image, origin top left."""

    text: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Page:
    """One drawn page, at the size the model will look at.

    `rotation` is the page's own /Rotate in degrees clockwise, already applied to `image`.
    """

    number: int
    image: Image
    words: tuple[Word, ...] = ()
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class SampleId:
    """Who a sample is: the pages of one document that share a prompt.

    `source` is the document's, carried along.
    """

    document_id: str
    uri: str
    n_pages: int
    page_numbers: tuple[int, ...]
    source: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def whole(self) -> bool:
        """True if the sample shows its whole document, so that the true schema applies to it."""
        return len(self.page_numbers) == self.n_pages


@dataclass(frozen=True, slots=True)
class Sample:
    """What the model sees in one prompt.

    `tiles` has one sequence of uint8 images a page: the page alone, or its parts and the whole when
    image splitting is on; nothing where the prompt shows no images. `words` has one
    tuple a page.
    """

    id: SampleId
    tiles: Tiles
    words: tuple[tuple[Word, ...], ...] = ()
    rasterize_s: float = 0.0
    encode_s: float = 0.0


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Generation:
    """The model's answer to one sample.

    `logprobs` are natural logarithms, one an output token, among the tokens that the grammar
    allowed. `model_s` is the sample's share of its batches' wall time in the model, in seconds;
    `vision_s`, `prefill_s` and `decode_s` are its parts, 0 where they are not told apart. Of the
    tokens `forced_tokens` were left no choice by the grammar, and `drafted_tokens` were guessed
    right; both cost no pass of their own. `passes` counts those that the answer took, 0 if unknown.
    `looks` is 2 where a first answer, of images not split, was in doubt and asked again.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    queue_s: float = 0.0
    model_s: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    passes: int = 0
    looks: int = 1


MODEL_TIMES = ("queue_s", "model_s", "vision_s", "prefill_s", "decode_s")
MODEL_COUNTS = ("forced_tokens", "drafted_tokens", "passes", "looks")
"""What of a `Generation` goes on into the tables under the same name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A generation with the sample it answers, and what the sample cost before, in seconds.

    `attempts` counts the processes that tried: more than one if some died meanwhile.
    """

    id: SampleId
    generation: Generation
    rasterize_s: float = 0.0
    encode_s: float = 0.0
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """What travels on in place of a sample or an answer that failed."""

    id: SampleId
    failure: Failure


@dataclass(frozen=True, slots=True)
class PageResult:
    """One row of `pages`, before provenance is added.

    `record` is the parsed answer with numbers as `int` or `Decimal`, exactly as written.
    """

    id: SampleId
    state: State
    failure: Failure | None = None
    record: Any = None
    record_json: str | None = None
    raw_text: str | None = None
    attempts: int = 1
    prompt_tokens: int = 0
    output_tokens: int = 0
    rasterize_s: float = 0.0
    encode_s: float = 0.0
    queue_s: float = 0.0
    model_s: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    passes: int = 0
    looks: int = 0


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """One row of `documents`, before provenance is added.

    `conflicts` maps a field path to the values that later pages stated otherwise; `field_pages`
    maps a field path to the page whose value was taken; of several in a prompt, the first.
    """

    plan: Plan
    state: State
    failure: Failure | None = None
    record: Any = None
    record_json: str | None = None
    conflicts: Mapping[str, Any] = field(default_factory=dict)
    field_pages: Mapping[str, int] = field(default_factory=dict)
    pages_ok: int = 0
    pages_truncated: int = 0
    pages_failed: int = 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a row: the same for every row of a run."""

    run_id: str
    task: str
    schema_id: str
    model_id: str
    model_revision: str
    prompt_hash: str
    pipeline_version: str
    fingerprint: str
