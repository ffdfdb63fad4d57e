"""generate: Sample -> Answer, by an engine that the stage knows only as `submit`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.engine.engine import Engine
from pipeline.engine.grammar import Grammar
from pipeline.engine.request import Request
from pipeline.errors import ItemError
from pipeline.records import Answer, Failed, Failure, Generation, Sample, StageName, Word


@dataclass(frozen=True, slots=True)
class Grammars:
    """`whole` holds a sample that shows its whole document to the schema; `part` lets values be
    null, so that no page of several has to invent what it does not show."""

    whole: Grammar
    part: Grammar


@dataclass(frozen=True, slots=True)
class Ask:
    """What every sample of a run is asked. `grammars` is None for unconstrained text."""

    prompt: str
    max_new_tokens: int
    grammars: Grammars | None = None


def generate(samples: Sequence[Sample | Failed], engine: Engine, ask: Ask) -> list[Answer | Failed]:
    """Answer samples, in order; those that failed in an earlier stage pass through.

    Samples are handed to the engine together; how it batches them is its own affair.
    """
    waiting = [
        sample if isinstance(sample, Failed) else (sample, submit(sample, engine, ask))
        for sample in samples
    ]
    return [one if isinstance(one, Failed) else outcome(*one) for one in waiting]


def submit(sample: Sample, engine: Engine, ask: Ask) -> Future[Generation]:
    """Hand a sample to the engine; `outcome` makes an answer of what becomes of it."""
    grammar = None
    if ask.grammars is not None:
        grammar = ask.grammars.whole if sample.id.whole else ask.grammars.part
    text = printed_text(sample.words)
    return engine.submit(Request(ask.prompt, sample.tiles, ask.max_new_tokens, grammar, text))


def printed_text(pages: Sequence[Sequence[Word]]) -> str:
    """Return what pages' text layers print, line by line.

    Two spaces stand where the words are further apart than they are high.
    """
    lines: list[str] = []
    for page in pages:
        before: Word | None = None
        for word in page:
            if before is None or word.left < before.left or word.top > _middle(before):
                lines.append(word.text)
            else:
                far = word.left - before.right > before.bottom - before.top
                lines[-1] += ("  " if far else " ") + word.text
            before = word
    return "\n".join(lines)


def _middle(word: Word) -> float:
    return (word.top + word.bottom) / 2


def outcome(sample: Sample, future: Future[Generation]) -> Answer | Failed:
    """Wait for a sample's generation. Raises RuntimeError if the engine failed itself."""
    try:
        generation = future.result()
    except ItemError as error:
        return Failed(sample.id, Failure(StageName.GENERATE, error.kind, error.message))
    return Answer(sample.id, generation, sample.rasterize_s, sample.encode_s)
