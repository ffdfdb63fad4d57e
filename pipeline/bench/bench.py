"""The measurement: all ways side by side in one run, medians of several rounds."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import fmean, median, pstdev
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.bench.ways import Measured, by_engine, by_static_batches, vision_and_prefill
from pipeline.bench.workload import Work
from pipeline.engine.engine import Limits
from pipeline.errors import RunError

STATIC_BATCHES = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds a page, medians of the rounds."""

    loop: float
    static: float
    engine: float
    engine_without_guesses: float
    vision: float
    prefill: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that `pagelake bench` says; see docs/PERFORMANCE.md for what the figures mean.

    `stages` are CPU-side seconds a page by stage, `every` all rounds' seconds a page by way.
    """

    model: str
    machine: str
    samples: int
    seed: int
    rounds: int
    threads: int
    slots: int
    static_batch: int
    output_tokens: float
    output_tokens_cv: float
    forced_share: float
    guessed_share: float
    passes_a_page: float
    same_answers: int
    seconds_a_page: Rates
    stages: dict[str, float]
    cpu_seconds_a_page: float
    engine_vs_static_ratio: float
    engine_vs_loop_ratio: float
    model_vs_floor_ratio: float
    every: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """Print the report for people."""
        rates = asdict(self.seconds_a_page)
        title = f"{self.samples} receipts (seed {self.seed}), {self.model}, {self.machine}"
        table = Table("", "ms a page", "pages/s", title=title)
        ours = f"engine, {self.slots} slots"
        names = {
            "loop": "generate, one page at a time",
            "static": f"generate, batches of {self.static_batch}",
            "engine_without_guesses": f"{ours}, no guesses",
            "engine": ours,
            "vision": "vision alone",
            "prefill": "prefill alone",
        }
        for way, name in names.items():
            table.add_row(name, f"{1000 * rates[way]:.1f}", f"{1 / rates[way]:.1f}")
        for stage, seconds in self.stages.items():
            table.add_row(stage, f"{1000 * seconds:.1f}", f"{1 / max(seconds, 1e-9):.1f}")
        console.print(table)
        console.print(
            f"engine: {self.engine_vs_static_ratio:.2f} times static generate, "
            f"{self.engine_vs_loop_ratio:.2f} times one page at a time, "
            f"{self.model_vs_floor_ratio:.2f} times the time of vision and prefill"
        )
        console.print(
            f"answers: {self.output_tokens:.1f} tokens (coefficient of variation "
            f"{self.output_tokens_cv:.2f}), {self.forced_share:.0%} forced, "
            f"{self.guessed_share:.0%} guessed right, {self.passes_a_page:.1f} passes; "
            f"{self.same_answers} of {self.samples} are as generate's"
        )


def measure(
    work: Work, *, rounds: int, slots: int, threads: int, seed: int, say: Callable[[str], None]
) -> Report:
    """Answer the samples in every way, `rounds` times over; `say` tells people how far it is."""
    count = len(work.samples)
    loop_count = max(1, count // 4)
    say("looking for the best batch of static generate")
    tried = {batch: by_static_batches(work, batch) for batch in STATIC_BATCHES if batch <= count}
    if not tried:
        raise RunError(f"{count} samples are too few; take {min(STATIC_BATCHES)} or more")
    best = min(tried, key=lambda batch: tried[batch].seconds)
    every: dict[str, list[float]] = {}
    last: dict[str, Measured] = {}

    def note(way: str, measured: Measured, pages: int) -> None:
        every.setdefault(way, []).append(measured.seconds / pages)
        last[way] = measured

    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        note("engine", by_engine(work, Limits(slots)), count)
        note("static", by_static_batches(work, best), count)
        note("engine_without_guesses", by_engine(work, Limits(slots, speculate=False)), count)
        note("loop", by_static_batches(work, 1, loop_count), loop_count)
        vision, prefill = vision_and_prefill(work, slots)
        every.setdefault("vision", []).append(vision / count)
        every.setdefault("prefill", []).append(prefill / count)
    rates = Rates(**{way: median(seconds) for way, seconds in every.items()})
    generations = last["engine"].generations
    stages = {stage: seconds / count for stage, seconds in work.commit(generations).items()}
    tokens = [len(one.token_ids) for one in generations]
    return Report(
        model=work.recipe.checkpoint.name,
        machine=f"{platform.machine()}, {threads} threads",
        samples=count,
        seed=seed,
        rounds=rounds,
        threads=threads,
        slots=slots,
        static_batch=best,
        output_tokens=fmean(tokens),
        output_tokens_cv=pstdev(tokens) / fmean(tokens),
        forced_share=sum(one.forced_tokens for one in generations) / sum(tokens),
        guessed_share=sum(one.drafted_tokens for one in generations) / sum(tokens),
        passes_a_page=fmean(one.passes for one in generations),
        same_answers=sum(
            ours == theirs
            for ours, theirs in zip(last["engine"].answers, last["static"].answers, strict=True)
        ),
        seconds_a_page=rates,
        stages=stages,
        cpu_seconds_a_page=last["engine"].cpu_seconds / count,
        engine_vs_static_ratio=rates.static / rates.engine,
        engine_vs_loop_ratio=rates.loop / rates.engine,
        model_vs_floor_ratio=rates.engine / (rates.vision + rates.prefill),
        every=every,
    )
