"""The measurement: all ways side by side in one run, medians of several rounds."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, pstdev

import torch

from pipeline.bench.costs import page_costs
from pipeline.bench.invoices import GrammarFigures, replay_invoices
from pipeline.bench.options import ANSWER_TOKENS, Options
from pipeline.bench.report import Answers, Rates, Report, Setup, stage_rows
from pipeline.bench.roofline import measure_machine
from pipeline.bench.tuning import Say, Sizes, best_sizes
from pipeline.bench.ways import (
    Measured,
    by_engine,
    by_generate_batch,
    by_static_batches,
    vision_and_prefill,
)
from pipeline.bench.workload import Work, make_work, part
from pipeline.engine.engine import Limits
from pipeline.errors import JobError
from pipeline.models.base import Placement
from pipeline.records import Generation

_REPLAYED = 64


def bench(options: Options, say: Say) -> Report:
    """Make the work and measure it; `say` tells people how far it is.

    Raises
    ------
    UserError
        If the options do not go together, or the model cannot be used.
    RunError
        If a page cannot be drawn, or the model cannot be run step by step.
    """
    options.check()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise JobError("--device: torch finds no GPU here; leave it out")
    with tempfile.TemporaryDirectory(prefix="pagelake-") as folder:
        work = _make_work(Path(folder), options, say)
        report = measure(work, options, say)
    if options.plot is not None:
        from pipeline.bench.plot import plot_roofline

        plot_roofline(report, options.plot)
    return report


def _make_work(folder: Path, options: Options, say: Say) -> Work:
    name, forced_tokens = options.model or "nano", None
    splitting = options.splitting
    if options.random_weights is not None:
        from pipeline.bench.random_weights import write_random_checkpoint

        say(f"writing random weights in the shape of {options.random_weights}")
        checkpoint = folder / options.random_weights
        write_random_checkpoint(
            checkpoint,
            options.random_weights,
            splitting=splitting is not False,
            device=options.device,
            seed=options.seed,
        )
        name, forced_tokens = str(checkpoint), options.answer_tokens or ANSWER_TOKENS
    return make_work(
        folder,
        name,
        options.samples,
        options.seed,
        options.threads,
        placement=Placement(options.device, options.threads),
        dtype=options.dtype,
        splitting=splitting,
        forced_tokens=forced_tokens,
    )


def measure(work: Work, options: Options, say: Say) -> Report:
    """Answer the samples in every way, round after round."""
    shape = work.stepping.decoder.shape
    count = len(work.samples)
    sizes = best_sizes(work, say)
    every, last = _rounds(work, options, sizes, say)
    rates = Rates(**{way: median(seconds) for way, seconds in every.items()})
    engine = last["engine"]
    seconds = {stage: total / count for stage, total in work.commit(engine.generations).items()}
    seconds["decode"] = fmean(one.decode_s for one in engine.generations)
    seconds |= {"vision": rates.vision, "prefill": rates.prefill}
    machine = measure_machine(shape.device, shape.dtype)
    return Report(
        setup=_setup(work, options, sizes, shape.dtype, engine.memory_plan),
        roofline=machine,
        answers=_answers(engine, last["static"]),
        seconds_a_page=rates,
        stages=stage_rows(seconds, page_costs(work, options.slots, engine.generations), machine),
        grammar=_grammar_figures(work, options),
        cpu_seconds_a_page=engine.cpu_seconds / count,
        engine_vs_static_ratio=rates.static / rates.engine,
        engine_vs_loop_ratio=rates.loop / rates.engine,
        model_vs_floor_ratio=rates.engine / (rates.vision + rates.prefill),
        every=every,
    )


def _rounds(
    work: Work, options: Options, sizes: Sizes, say: Say
) -> tuple[dict[str, list[float]], Mapping[str, Measured]]:
    """Return the seconds a page of every round by way, and what the last round measured."""
    count = len(work.samples)
    eighth = part(work, slice(None, None, 8))
    limits = Limits(
        options.slots, speculate=work.grammar is not None, fixed_steps=options.fixed_steps
    )
    every: dict[str, list[float]] = {}
    last: dict[str, Measured] = {}

    def note(way: str, measured: Measured, pages: int) -> None:
        every.setdefault(way, []).append(measured.seconds / pages)
        last[way] = measured

    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        note("engine", by_engine(work, limits), count)
        note("static", by_static_batches(work, sizes.static), count)
        if limits.speculate:
            bare = replace(limits, speculate=False)
            note("engine_without_guesses", by_engine(work, bare), count)
        if sizes.generate_batch is not None:
            note("generate_batch", by_generate_batch(work, sizes.generate_batch), count)
        note("loop", by_static_batches(eighth, 1), len(eighth.samples))
        vision, prefill = vision_and_prefill(work, sizes.reading)
        every.setdefault("vision", []).append(vision / count)
        every.setdefault("prefill", []).append(prefill / count)
    return every, last


def _setup(
    work: Work, options: Options, sizes: Sizes, dtype: torch.dtype, memory_plan: str | None
) -> Setup:
    return Setup(
        model=options.random_weights or work.recipe.checkpoint.name,
        machine=_machine_name(options.device),
        torch=torch.__version__,
        device=options.device,
        dtype=str(dtype).removeprefix("torch."),
        samples=len(work.samples),
        seed=options.seed,
        rounds=options.rounds,
        threads=options.threads,
        slots=options.slots,
        static_batch=sizes.static,
        generate_batch_slots=sizes.generate_batch,
        forced_lengths=work.grammar is None,
        memory_plan=memory_plan,
    )


def _machine_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _answers(engine: Measured, static: Measured) -> Answers:
    generations: Sequence[Generation] = engine.generations
    tokens = [len(one.token_ids) for one in generations]
    pairs = zip(engine.answers, static.answers, strict=True)
    return Answers(
        output_tokens=fmean(tokens),
        output_tokens_cv=pstdev(tokens) / fmean(tokens),
        forced_share=sum(one.forced_tokens for one in generations) / sum(tokens),
        guessed_share=sum(one.drafted_tokens for one in generations) / sum(tokens),
        passes_a_page=fmean(one.passes for one in generations),
        same_answers=sum(ours == theirs for ours, theirs in pairs),
    )


def _grammar_figures(work: Work, options: Options) -> GrammarFigures | None:
    if work.grammar is not None:
        return None
    return replay_invoices(work.model.vocabulary, _REPLAYED, options.seed)
