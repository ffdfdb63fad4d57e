"""What one task of a run does, step by step, on plain values: the same under every runner.

::

    Planner: Documents -> Plans        Drawer: Shard -> Samples
    Answerer: Samples -> Answers       Committer: Answers -> Receipt
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.grammar import Grammar
from pipeline.errors import ItemError, RunError
from pipeline.job import PageSelection, parse_pages
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Commit, Ledger
from pipeline.lake.types import arrow_type
from pipeline.models.base import Placement
from pipeline.models.families import family_of
from pipeline.records import (
    Answer,
    Document,
    Failed,
    Failure,
    Generation,
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
from pipeline.runners.recipe import Question, Recipe
from pipeline.runners.watch import UNWATCHED, Watching
from pipeline.schema import Validator, bound_lists, relax
from pipeline.stages.encode import encode
from pipeline.stages.generate import Ask, Grammars, generate, outcome, submit
from pipeline.stages.parse import Validate, parse_failed, parse_json, parse_text
from pipeline.stages.plan import plan
from pipeline.stages.rasterize import rasterize
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

    def plan(self, documents: Iterable[Document]) -> Iterator[Plan]:
        """Plan documents one by one."""
        for document in documents:
            key = f"{document.uri}\n{document.size}\n{document.modified}"
            try:
                with self._watch.item("plan", key, document.uri, self._opening_s):
                    planned = plan(document, self._renderer, self._selection, self._max_pages)
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
        self._drawing_s = longest_s(recipe.job.render)
        self._encoder = recipe.encoder

    def draw(self, shard: Shard) -> Iterator[Sample | Failed]:
        """Yield exactly one sample, or its failure, a planned page."""
        for window in shard.windows:
            yield from self._window(window)

    def _window(self, window: Window) -> Iterator[Sample | Failed]:
        def around(number: int | None) -> AbstractContextManager[None]:
            key, label = named(window, () if number is None else (number,))
            return self._watch.item("rasterize", key, label, self._drawing_s)

        pages = rasterize(window, self._renderer, around)
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
                    sample = encode(sample_id, (page,), self._encoder)
            except ItemError as error:
                yield Failed(sample_id, _failure(StageName.ENCODE, error))
                continue
            yield replace(
                sample,
                rasterize_s=drawn - started,
                encode_s=time.perf_counter() - drawn,
            )

    def close(self) -> None:
        """End the renderer's child."""
        self._renderer.close()


class Answerer:
    """Holds the model and its engine: made once an actor, used for every sample it gets."""

    def __init__(self, question: Question, placement: Placement) -> None:
        job, checkpoint = question.job, question.checkpoint
        model = family_of(checkpoint).load(checkpoint, job.model, placement)
        grammars = None
        if job.task == "extract" and job.generation.constrained:
            compact, most = checkpoint.compact_json, job.generation.max_items
            whole, part = (
                # One item too many tells that the model would have gone on.
                schema if most is None else bound_lists(schema, most + 1)
                for schema in (question.schema.document, relax(question.schema))
            )
            grammars = Grammars(
                whole=Grammar(whole, model.vocabulary, compact=compact),
                part=Grammar(part, model.vocabulary, compact=compact),
            )
        self._ask = Ask(question.prompt, job.generation.max_new_tokens, grammars)
        self._engine = Engine(model, Limits(batch=job.resources.batch))

    def answer(self, samples: Sequence[Sample | Failed]) -> list[Answer | Failed]:
        """Answer samples, in order; thread-safe."""
        return generate(samples, self._engine, self._ask)

    def start(self, sample: Sample, done: Callable[[Answer | Failed | Exception], None]) -> None:
        """Answer a sample and call `done`, from another thread; thread-safe.

        It gets an exception if the engine failed, after which nothing more will be answered.
        """

        def settle(future: Future[Generation]) -> None:
            try:
                done(outcome(sample, future))
            except RuntimeError as error:
                done(error)

        submit(sample, self._engine, self._ask).add_done_callback(settle)

    @property
    def progress(self) -> int:
        """A number that grows for as long as the engine gets on."""
        return self._engine.progress

    def close(self, *, drain: bool = True) -> None:
        """Answer what is queued, then stop; without `drain`, stop at once."""
        self._engine.close(drain=drain)


class Committer:
    """Parses, validates, writes and commits answers."""

    def __init__(self, recipe: Recipe, watch: Watching = UNWATCHED) -> None:
        self._watch = watch
        self._recipe = recipe
        self._ledger = Ledger(Layout.open(recipe.job.output.uri))
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


def _failure(stage: StageName, error: ItemError) -> Failure:
    return Failure(stage, error.kind, error.message, error.attempt)


def named(whose: Window | SampleId, pages: tuple[int, ...]) -> tuple[str, str]:
    """Return what tells pages (none: the document) from others, and what people call them."""
    numbers = ",".join(map(str, pages))
    key = f"{whose.document_id} {numbers}"
    return key, f"page {numbers} of {whose.uri}" if pages else whose.uri


def _judges(document: Mapping[str, Any], max_items: int | None) -> tuple[Validate, Validate | None]:
    """Return what judges a record, and what judges whether its lists were cut."""
    judge = Validator(document).violation
    if max_items is None:
        return judge, None
    return judge, Validator(bound_lists(document, max_items)).violation
