"""generate: Sample -> Answer, by an engine that the stage knows only as `submit`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.engine import second_look
from pipeline.engine.engine import Engine
from pipeline.engine.grammar import Grammar
from pipeline.engine.request import Request
from pipeline.engine.second_look import Doubt
from pipeline.errors import ItemError
from pipeline.models.chat import TEXT_SLOT
from pipeline.printed import harmless, printed_text
from pipeline.records import (
    Answer,
    Failed,
    Failure,
    Generation,
    Sample,
    StageName,
    Tiles,
)


@dataclass(frozen=True, slots=True)
class Grammars:
    """`whole` holds a sample that shows its whole document to the schema; `part` lets values be
    null, so that no page of several has to invent what it does not show."""

    whole: Grammar
    part: Grammar


@dataclass(frozen=True, slots=True)
class Doubts:
    """`whole` and `part` judge first answers to what `Grammars` of the name are for."""

    whole: Doubt
    part: Doubt


@dataclass(frozen=True, slots=True)
class Ask:
    """What every sample of a run is asked.

    `prompts[n - 1]` is the prompt of a sample of n pages, in which `TEXT_SLOT` stands for what
    their text layers print. Its images are `examples`, then the sample's own. `grammars` is None
    for unconstrained text, `doubts` if all is looked at once.
    """

    prompts: Sequence[str]
    max_new_tokens: int
    grammars: Grammars | None = None
    examples: Tiles = ()
    examples_key: str = ""
    doubts: Doubts | None = None


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
    prompt = ask.prompts[len(sample.id.page_numbers) - 1]
    request = Request(
        filled(prompt, text),
        sample.tiles,
        ask.max_new_tokens,
        grammar,
        page_text=text,
        examples=ask.examples,
        examples_key=ask.examples_key,
        alike=TEXT_SLOT not in prompt,
    )
    if ask.doubts is None:
        return engine.submit(request)
    doubt = ask.doubts.whole if sample.id.whole else ask.doubts.part
    return second_look.submit(engine, request, doubt)


def filled(prompt: str, text: str) -> str:
    """Return a prompt with what the pages' text layers print in its slot."""
    return prompt.replace(TEXT_SLOT, harmless(text))


def outcome(sample: Sample, future: Future[Generation]) -> Answer | Failed:
    """Wait for a sample's generation. Raises RuntimeError if the engine failed itself."""
    try:
        generation = future.result()
    except ItemError as error:
        return Failed(sample.id, Failure(StageName.GENERATE, error.kind, error.message))
    return Answer(sample.id, generation, sample.rasterize_s, sample.encode_s)
