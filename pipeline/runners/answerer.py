"""The step of a run that needs the model: Samples -> Answers.

Apart from the other steps, so that no process but the model's loads torch for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.grammar import Grammar
from pipeline.engine.second_look import Doubt, Valid
from pipeline.lake.exact_json import loads
from pipeline.models.base import Placement
from pipeline.models.families import family_of
from pipeline.records import Answer, Failed, Generation, Sample
from pipeline.runners.recipe import Question
from pipeline.runners.stored_model import on_this_machine
from pipeline.schema import Validator, bound_lists, relax
from pipeline.stages.generate import Ask, Doubts, Grammars, generate, outcome, submit


class Answerer:
    """Holds the model and its engine: made once an actor, used for every sample it gets."""

    def __init__(self, question: Question, placement: Placement) -> None:
        job = question.job
        checkpoint = on_this_machine(question.checkpoint, job, weights=True)
        model = family_of(checkpoint).load(checkpoint, job.model, placement)
        grammars = None
        if job.task != "ocr" and job.generation.constrained:
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
        self._ask = Ask(
            question.prompts,
            job.generation.max_new_tokens,
            grammars,
            question.examples.tiles,
            question.examples.digest,
            _doubts(question) if job.model.image_splitting == "adaptive" else None,
        )
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
            except Exception as error:  # in a callback it would be lost, and the sample waited for
                done(error)

        submit(sample, self._engine, self._ask).add_done_callback(settle)

    @property
    def progress(self) -> int:
        """A number that grows for as long as the engine gets on."""
        return self._engine.progress

    def close(self, *, drain: bool = True) -> None:
        """Answer what is queued, then stop; without `drain`, stop at once."""
        self._engine.close(drain=drain)


def _doubts(question: Question) -> Doubts:
    """What makes a first look not enough: an answer that `parse` would fail, or an unsure one."""
    least = question.job.model.split_below
    if question.job.task == "ocr":
        doubt = Doubt(None, least)
        return Doubts(doubt, doubt)
    whole, part = question.schema.document, relax(question.schema)
    return Doubts(Doubt(_valid(whole), least), Doubt(_valid(part), least))


def _valid(document: Mapping[str, Any]) -> Valid:
    judge = Validator(document).violation

    def valid(text: str) -> bool:
        try:
            return judge(loads(text)) is None
        except ValueError:
            return False

    return valid
