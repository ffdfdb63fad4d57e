"""The work that is measured: made receipts, drawn and encoded by the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.bench.forced import FixedLength, Unending, draw_lengths
from pipeline.bench.invoices import invoice_json
from pipeline.bench.options import Dtype
from pipeline.engine.grammar import Grammar
from pipeline.engine.request import Request
from pipeline.errors import CheckpointError, RunError
from pipeline.job import Input, Job
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Constraint, Model, ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.stepping import SteppingModel
from pipeline.output_settings import Output
from pipeline.printed import printed_text
from pipeline.records import Answer, Failed, Generation, Sample
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.steps import Committer, Drawer, Planner
from pipeline.stages.discover import discover
from pipeline.stages.plan import shards
from pipeline.synth.corpus import write_corpus
from pipeline.synth.words import Split

RECEIPT, INVOICE = "receipt.v1", "invoice.v1"
MAX_NEW_TOKENS = 512
_COSTED = ("idefics2",)  # families whose vision `pipeline.bench.costs` can count


@dataclass(frozen=True, slots=True)
class Work:
    """A model, samples for it, and how many tokens each sample's answer may have.

    Without a grammar every answer has just as many.
    """

    recipe: Recipe
    model: Model
    grammar: Grammar | None
    samples: Sequence[Sample]
    lengths: Sequence[int]

    @property
    def stepping(self) -> SteppingModel:
        """The model as the engine runs it. Raises RunError if it cannot be run so."""
        return _stepping(self.model, self.recipe.checkpoint.name)

    def requests(self) -> list[Request]:
        """Return what the engine is asked, with the pages' text layers."""
        return [
            Request(
                self.recipe.prompts[0],
                sample.tiles,
                length,
                self.grammar,
                printed_text(sample.words),
            )
            for sample, length in zip(self.samples, self.lengths, strict=True)
        ]

    def inputs(self) -> list[ModelInput]:
        """Return what `generate` is asked: the same, under the same rules."""
        return [
            ModelInput(self.recipe.prompts[0], sample.tiles, self._constraint(length))
            for sample, length in zip(self.samples, self.lengths, strict=True)
        ]

    def _constraint(self, length: int) -> Constraint:
        if self.grammar is None:
            return FixedLength(self.model.vocabulary, length)
        return self.grammar.start()

    def commit(self, generations: Sequence[Generation]) -> dict[str, float]:
        """Parse, validate and write answers as a run does; return the seconds by stage.

        Without a grammar, answers are no records: those of made invoices take their place.
        """
        if self.grammar is None:
            generations = [
                replace(one, text=invoice_json(f"answer {number}"))
                for number, one in enumerate(generations)
            ]
        answers: list[Answer | Failed] = [
            Answer(sample.id, generation, sample.rasterize_s, sample.encode_s)
            for sample, generation in zip(self.samples, generations, strict=True)
        ]
        seconds = Committer(self.recipe).commit(answers).seconds
        return {stage: seconds[stage] for stage in ("rasterize", "encode", "parse", "write")}


def _stepping(model: Model, name: str) -> SteppingModel:
    if not isinstance(model, SteppingModel):
        raise RunError(f"{name} cannot be run step by step")
    return model


def part(work: Work, which: slice) -> Work:
    """Return the work on some of its samples."""
    return replace(work, samples=work.samples[which], lengths=work.lengths[which])


def make_work(
    folder: Path,
    name: str,
    count: int,
    seed: int,
    threads: int,
    *,
    placement: Placement | None = None,
    dtype: Dtype = "auto",
    splitting: bool | None = None,
    forced_tokens: int | None = None,
) -> Work:
    """Write `count` receipts into `folder`, draw them, and load the model.

    With `forced_tokens`, answers have forced lengths of that mean, and the prompt asks for an
    invoice.

    Raises
    ------
    UserError
        If the model cannot be used.
    RunError
        If a page cannot be drawn.
    """
    settings = ModelSettings(
        name=name, dtype=dtype, image_splitting="auto" if splitting is None else splitting
    )
    if (family := resolve(settings).family) not in _COSTED:
        raise CheckpointError(
            f"--model: '{name}' is a '{family}' model; bench knows what pages cost "
            f"{', '.join(_COSTED)}"
        )
    job = Job(
        input=Input(paths=(str(folder / "documents"),)),
        schema=RECEIPT if forced_tokens is None else INVOICE,
        model=settings,
        output=Output(uri=str(folder / "out")),
    )
    recipe = prepare(job, "bench")
    write_corpus(folder, seed, count, Split.TEST)
    placement = placement or Placement("cpu", threads)
    model = family_of(recipe.checkpoint).load(recipe.checkpoint, settings, placement)
    if forced_tokens is not None:
        lengths = draw_lengths(count, forced_tokens, seed)
        return Work(recipe, Unending(_stepping(model, name)), None, _drawn(recipe), lengths)
    compact = recipe.checkpoint.compact_json
    grammar = Grammar(recipe.schema.document, model.vocabulary, compact=compact)
    return Work(recipe, model, grammar, _drawn(recipe), [MAX_NEW_TOKENS] * count)


def _drawn(recipe: Recipe) -> list[Sample]:
    planner, drawer = Planner(recipe), Drawer(recipe)
    try:
        plans = list(planner.plan(discover(recipe.job.input)))
        drawn = [
            one
            for shard in shards((plan, plan.page_numbers) for plan in plans)
            for one in drawer.draw(shard)
        ]
    finally:
        planner.close()
        drawer.close()
    failed = [one for one in drawn if isinstance(one, Failed)]
    if failed:
        raise RunError(f"{failed[0].id.uri}: {failed[0].failure.message}")
    return [one for one in drawn if isinstance(one, Sample)]
