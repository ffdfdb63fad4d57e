"""The work that is measured: made receipts, drawn and encoded by the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.grammar import Grammar
from pipeline.engine.request import Request
from pipeline.errors import RunError
from pipeline.job import Input, Job, Output
from pipeline.job import Model as ModelSettings
from pipeline.models.base import Model, ModelInput, Placement
from pipeline.models.families import family_of
from pipeline.records import Answer, Failed, Generation, Sample
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.steps import Committer, Drawer, Planner
from pipeline.stages.discover import discover
from pipeline.stages.generate import printed_text
from pipeline.stages.plan import shards
from pipeline.synth.corpus import write_corpus
from pipeline.synth.words import Split

SCHEMA_ID = "receipt.v1"
MAX_NEW_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Work:
    """A model, and samples for it."""

    recipe: Recipe
    model: Model
    grammar: Grammar
    samples: Sequence[Sample]

    def requests(self) -> list[Request]:
        """Return what the engine is asked, with the pages' text layers."""
        return [
            Request(
                self.recipe.prompt,
                sample.tiles,
                MAX_NEW_TOKENS,
                self.grammar,
                printed_text(sample.words),
            )
            for sample in self.samples
        ]

    def inputs(self) -> list[ModelInput]:
        """Return what `generate` is asked: the same, under the same grammar."""
        return [
            ModelInput(self.recipe.prompt, sample.tiles, self.grammar.start())
            for sample in self.samples
        ]

    def commit(self, generations: Sequence[Generation]) -> dict[str, float]:
        """Parse, validate and write answers as a run does; return the seconds by stage."""
        answers: list[Answer | Failed] = [
            Answer(sample.id, generation, sample.rasterize_s, sample.encode_s)
            for sample, generation in zip(self.samples, generations, strict=True)
        ]
        seconds = Committer(self.recipe).commit(answers).seconds
        return {stage: seconds[stage] for stage in ("rasterize", "encode", "parse", "write")}


def make_work(folder: Path, name: str, count: int, seed: int, threads: int) -> Work:
    """Write `count` receipts into `folder`, draw them, and load the model.

    Raises
    ------
    UserError
        If the model cannot be used.
    RunError
        If a page cannot be drawn.
    """
    write_corpus(folder, seed, count, Split.TEST)
    settings = ModelSettings(name=name)
    job = Job(
        input=Input(paths=(str(folder / "documents"),)),
        schema=SCHEMA_ID,
        model=settings,
        output=Output(uri=str(folder / "out")),
    )
    recipe = prepare(job, "bench")
    model = family_of(recipe.checkpoint).load(
        recipe.checkpoint, settings, Placement("cpu", threads)
    )
    compact = recipe.checkpoint.compact_json
    return Work(
        recipe=recipe,
        model=model,
        grammar=Grammar(recipe.schema.document, model.vocabulary, compact=compact),
        samples=_drawn(recipe),
    )


def _drawn(recipe: Recipe) -> list[Sample]:
    planner, drawer = Planner(recipe), Drawer(recipe)
    try:
        plans = list(planner.plan(discover(recipe.job.input)))
        drawn = [one for shard in shards(plans, lambda *_: False) for one in drawer.draw(shard)]
    finally:
        planner.close()
        drawer.close()
    failed = [one for one in drawn if isinstance(one, Failed)]
    if failed:
        raise RunError(f"{failed[0].id.uri}: {failed[0].failure.message}")
    return [one for one in drawn if isinstance(one, Sample)]
