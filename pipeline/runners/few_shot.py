"""A job's examples, drawn and encoded as its samples are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.errors import ItemError, JobError
from pipeline.job import Example, Job
from pipeline.lake.exact_json import dumps
from pipeline.lake.source import Source
from pipeline.models.base import PageEncoder
from pipeline.printed import harmless, printed_text
from pipeline.prompting import Shown
from pipeline.records import Image, Tiles, Word
from pipeline.render.renderer import Renderer
from pipeline.schema import Schema, Validator

_Words = Sequence[Sequence[Word]]
_MOST_PAGES = 64
"""Of all examples together: each is shown before every sample, and held by every model."""


@dataclass(frozen=True)
class Examples:
    """What is shown before each sample: `tiles` of all images in order."""

    shown: tuple[Shown, ...] = ()
    tiles: Tiles = field(default=(), repr=False)

    @cached_property
    def digest(self) -> str:
        """A hash of the images and answers, in hex."""
        found = hashlib.sha256(repr(self.shown).encode())
        for page in self.tiles:
            for tile in page:
                found.update(repr(tile.shape).encode() + tile.tobytes())
        return found.hexdigest()


def draw_examples(
    job: Job, schema: Schema, encoder: PageEncoder, password: str | None, *, images: bool
) -> Examples:
    """Draw all pages of the job's examples; without `images` only their text is of use.

    Raises
    ------
    JobError
        If there are too many pages, a page cannot be drawn, or an answer does not fit the schema.
    """
    if not job.examples:
        return Examples()
    answers = [_answer(job, schema, number) for number in range(len(job.examples))]
    renderer = Renderer(job.render, encoder.plan_page, password)
    try:
        drawn: list[tuple[Tiles, _Words]] = []
        for example in job.examples:
            room = _MOST_PAGES - sum(len(words) for _, words in drawn)
            drawn.append(_pages(example, renderer, encoder, images, Source.of(job), room))
    finally:
        renderer.close()
    return Examples(
        tuple(
            Shown(len(tiles), harmless(printed_text(words)), answer)
            for (tiles, words), answer in zip(drawn, answers, strict=True)
        ),
        tuple(page for tiles, _ in drawn for page in tiles),
    )


def _answer(job: Job, schema: Schema, number: int) -> str:
    answer = job.examples[number].answer
    where = f"examples[{number}].answer"
    if job.task == "ocr":
        if isinstance(answer, str):
            return answer
        raise JobError(f"{where}: task ocr answers with text; write it as one string")
    if isinstance(answer, str):
        raise JobError(f"{where}: write it as an object that fits schema {schema.id}")
    if (complaint := Validator(schema.document).violation(answer)) is not None:
        raise JobError(f"{where}: does not fit schema {schema.id}: {complaint}")
    return dumps(answer)


def _pages(
    example: Example,
    renderer: Renderer,
    encoder: PageEncoder,
    images: bool,
    source: Source,
    room: int,
) -> tuple[Tiles, _Words]:
    tiles: list[Sequence[Image]] = []
    words: list[Sequence[Word]] = []
    for uri in example.pages:
        try:
            n_pages = renderer.open(source.content(uri)).n_pages
            if len(words) + n_pages > room:
                raise JobError(
                    f"examples: {uri}: with it they have more than {_MOST_PAGES} pages in all; "
                    "show fewer, or files of single pages"
                )
            for number in range(1, n_pages + 1):
                page = renderer.draw(number)
                words.append(page.words)
                if images:
                    tiles.append(encoder.encode(page.image))
        except ItemError as error:
            raise JobError(f"examples: {uri}: {error.message}") from error
    return tiles, words
