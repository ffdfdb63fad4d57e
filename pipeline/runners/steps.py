"""What one task of a run does, step by step, on plain values: the same under every runner.

::

    Planner: Documents -> Plans        Drawer: Shard -> Samples
                                       Committer: Answers -> Receipt

What lies between the last two is `pipeline.runners.answerer`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from pipeline.errors import ItemError, RunError
from pipeline.lake.ledger import Commit, Ledger
from pipeline.lake.source import Source
from pipeline.lake.types import arrow_type
from pipeline.records import (
    Answer,
    Document,
    Failed,
    Failure,
    Page,
    PageResult,
    Plan,
    Sample,
    SampleId,
    Shard,
    StageName,
    Window,
)
from pipeline.render.renderer import Renderer, longest_s
from pipeline.runners.receipt import Receipt
from pipeline.runners.recipe import Recipe
from pipeline.runners.watch import UNWATCHED, Watching
from pipeline.schema import Validator, bound_lists, relax
from pipeline.selection import PageSelection, page_ranges, parse_pages
from pipeline.stages.encode import encode, read_text, require_text, together
from pipeline.stages.parse import Validate, parse_failed, parse_json, parse_text
from pipeline.stages.plan import plan
from pipeline.stages.rasterize import OpenDocument, rasterize
from pipeline.stages.write import write_pages


def _renderer(recipe: Recipe) -> Renderer:
    return Renderer(recipe.job.render, recipe.encoder.plan_page, recipe.password)


class Planner:
    """Hashes and counts documents. Owns a renderer; close it."""

    def __init__(self, recipe: Recipe, watch: Watching = UNWATCHED) -> None:
        self._watch = watch
        self._renderer = _renderer(recipe)
        self._opening_s = longest_s(recipe.job.render)
        pages = recipe.job.input.pages
        self._selection: PageSelection | None = None if pages is None else parse_pages(pages)
        self._max_pages = recipe.job.input.max_pages
        self._source = Source.of(recipe.job)

    def plan(self, documents: Iterable[Document]) -> Iterator[Plan]:
        """Plan documents one by one."""
        for document in documents:
            key = f"{document.uri}\n{document.size}\n{document.modified}"
            try:
                with self._watch.item("plan", key, document.uri, self._opening_s):
                    planned = plan(
                        document,
                        self._renderer,
                        self._selection,
                        self._max_pages,
                        self._source,
                    )
            except ItemError as error:
                planned = Plan(document, None, None, failure=_failure(StageName.DISCOVER, error))
            yield planned

    def close(self) -> None:
        """End the renderer's child."""
        self._renderer.close()


class Drawer:
    """Draws and encodes shards. Owns a renderer; close it."""

    def __init__(self, recipe: Recipe, watch: Watching = UNWATCHED) -> None:
        self._watch = watch
        self._renderer = _renderer(recipe)
        self._document = OpenDocument(self._renderer, Source.of(recipe.job))
        self._drawing_s = longest_s(recipe.job.render)
        self._encoder = recipe.encoder
        self._shows_images = recipe.shows_images
        self._by_document = recipe.job.unit == "document"

    def draw(self, shard: Shard) -> Iterator[Sample | Failed]:
        """Yield samples, or failures of pages: every planned page is in exactly one of them."""
        for window in shard.windows:
            drawn: Iterable[Sample | Failed] = self._pages(window)
            if self._by_document:
                drawn = _as_one(list(drawn))
            yield from drawn if self._shows_images else map(_with_text, drawn)

    def _pages(self, window: Window) -> Iterator[Sample | Failed]:
        """Draw and encode page by page, so that a page that fails costs itself only."""

        def around(number: int | None) -> AbstractContextManager[None]:
            key, label = named(window, () if number is None else (number,))
            return self._watch.item("rasterize", key, label, self._drawing_s)

        pages = rasterize(window, self._document, around)
        for number in window.page_numbers:
            sample_id = SampleId(
                window.document_id, window.uri, window.n_pages, (number,), window.source
            )
            started = time.perf_counter()
            page = next(pages)
            drawn = time.perf_counter()
            if isinstance(page, Failure):
                yield Failed(sample_id, page)
                continue
            try:
                with self._watch.item("encode", *named(window, (number,))):
                    sample = self._encode(sample_id, page)
            except ItemError as error:
                yield Failed(sample_id, _failure(StageName.ENCODE, error))
                continue
            yield replace(
                sample,
                rasterize_s=drawn - started,
                encode_s=time.perf_counter() - drawn,
            )

    def _encode(self, sample_id: SampleId, page: Page) -> Sample:
        if self._shows_images:
            return encode(sample_id, (page,), self._encoder)
        return read_text(sample_id, (page,))

    def close(self) -> None:
        """End the renderer's child."""
        self._renderer.close()


class Committer:
    """Parses, validates, writes and commits answers."""

    def __init__(self, recipe: Recipe, watch: Watching = UNWATCHED) -> None:
        self._watch = watch
        self._recipe = recipe
        self._ledger = Ledger(recipe.layout)
        self._record_type = arrow_type(recipe.schema.document)
        most = recipe.job.generation.max_items
        self._whole = _judges(recipe.schema.document, most)
        self._part = _judges(relax(recipe.schema), most)
        pages = recipe.job.input.pages
        self._selection = None if pages is None else parse_pages(pages)

    def commit(self, answers: Sequence[Answer | Failed]) -> Receipt:
        """Put rows in place, then their commit: readers see all of them or none.

        Raises
        ------
        RunError
            If writing these rows has brought down too many processes: no row is to blame.
        """
        started = time.perf_counter()
        results = [self._parse(answer) for answer in answers]
        parsed = time.perf_counter()
        commit = self._write(results)
        seconds = {
            "rasterize": sum(result.rasterize_s for result in results),
            "encode": sum(result.encode_s for result in results),
            "generate": sum(result.model_s for result in results),
            "parse": parsed - started,
            "write": time.perf_counter() - parsed,
        }
        return Receipt(
            pages=sum(len(result.id.page_numbers) for result in results),
            documents=sum(self._is_last(result.id) for result in results),
            states=dict(commit.states),
            kinds=dict(commit.failures),
            seconds=seconds,
            prompt_tokens=sum(result.prompt_tokens for result in results),
            output_tokens=sum(result.output_tokens for result in results),
        )

    def close(self) -> None:
        """Nothing to end; here so that every step closes alike."""

    def _write(self, results: Sequence[PageResult]) -> Commit:
        first = results[0].id
        run, (key, label) = self._recipe.provenance.run_id, named(first, first.page_numbers)
        try:
            with self._watch.item("write", f"{run}\n{key}", f"{len(results)} rows from {label}"):
                return write_pages(
                    self._ledger,
                    results,
                    [result.id.source for result in results],
                    self._recipe.provenance,
                    self._record_type,
                )
        except ItemError as error:
            raise RunError(f"{len(results)} rows from {label}: {error.message}") from error

    def _parse(self, answer: Answer | Failed) -> PageResult:
        if isinstance(answer, Failed):
            return parse_failed(answer)
        try:
            with self._watch.item("parse", *named(answer.id, answer.id.page_numbers)):
                return self._judged(answer)
        except ItemError as error:
            return parse_failed(Failed(answer.id, _failure(StageName.PARSE, error)))

    def _judged(self, answer: Answer) -> PageResult:
        if self._recipe.job.task == "ocr":
            return parse_text(answer)
        return parse_json(answer, *(self._whole if answer.id.whole else self._part))

    def _is_last(self, sample_id: SampleId) -> bool:
        selection, n_pages = self._selection, sample_id.n_pages
        last = n_pages if selection is None else selection.select(n_pages)[-1]
        return sample_id.page_numbers[-1] == last


def _as_one(drawn: Sequence[Sample | Failed]) -> list[Sample | Failed]:
    """Put the pages of a window into one sample; those that failed stay by themselves."""
    good = [one for one in drawn if isinstance(one, Sample)]
    failed = [one for one in drawn if isinstance(one, Failed)]
    return [*failed, *([together(good)] if good else [])]


def _with_text(drawn: Sample | Failed) -> Sample | Failed:
    """Fail a sample that would show the model nothing."""
    if isinstance(drawn, Sample):
        try:
            require_text(drawn)
        except ItemError as error:
            return Failed(drawn.id, _failure(StageName.ENCODE, error))
    return drawn


def _failure(stage: StageName, error: ItemError) -> Failure:
    return Failure(stage, error.kind, error.message, error.attempt)


def named(whose: Window | SampleId, pages: tuple[int, ...]) -> tuple[str, str]:
    """Return what tells pages (none: the document) from others, and what people call them."""
    if not pages:
        return f"{whose.document_id} ", whose.uri
    numbers = page_ranges(pages)
    label = f"{'page' if len(pages) == 1 else 'pages'} {numbers} of {whose.uri}"
    return f"{whose.document_id} {numbers}", label


def _judges(document: Mapping[str, Any], max_items: int | None) -> tuple[Validate, Validate | None]:
    """Return what judges a record, and what judges whether its lists were cut."""
    judge = Validator(document).violation
    if max_items is None:
        return judge, None
    return judge, Validator(bound_lists(document, max_items)).violation
