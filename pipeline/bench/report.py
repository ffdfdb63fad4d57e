"""What `pagelake bench` says; docs/PERFORMANCE.md tells what the figures mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.bench.invoices import GrammarFigures
from pipeline.bench.roofline import Cost, Machine

STAGES = ("rasterize", "encode", "vision", "prefill", "decode", "parse", "write")


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured, and on what; `forced_lengths` if the model's weights are random."""

    model: str
    machine: str
    torch: str
    device: str
    dtype: str
    samples: int
    seed: int
    rounds: int
    threads: int
    slots: int
    static_batch: int
    generate_batch_slots: int | None
    forced_lengths: bool
    memory_plan: str | None


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds a page, medians of the rounds.

    None without guesses where guesses mean nothing, and none of a way that does not run here.
    """

    loop: float
    static: float
    engine: float
    vision: float
    prefill: float
    engine_without_guesses: float | None = None
    generate_batch: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the engine's answers were like; `same` counts those that static generate gave, too."""

    output_tokens: float
    output_tokens_cv: float
    forced_share: float
    guessed_share: float
    passes_a_page: float
    same_answers: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; `utilisation` is the least time the machine could take, over the time taken.

    A stage without a roofline has None for it, and for the operations and bytes that a page needs.
    """

    stage: str
    seconds_a_page: float
    pages_a_second: float
    utilisation: float | None = None
    flops_a_page: float | None = None
    bytes_a_page: float | None = None


def stage_rows(
    seconds: Mapping[str, float], costs: Mapping[str, Cost], machine: Machine
) -> list[Stage]:
    """Return the stages in order, from their seconds a page and what a page costs at least."""
    rows = []
    for name in STAGES:
        taken, cost = max(seconds[name], 1e-9), costs.get(name)
        if cost is None:
            rows.append(Stage(name, taken, 1 / taken))
        else:
            share = machine.seconds(cost.flops, cost.moved) / taken
            rows.append(Stage(name, taken, 1 / taken, share, cost.flops, cost.moved))
    return rows


@dataclass(frozen=True, slots=True)
class Report:
    """All figures; `every` has all rounds' seconds a page by way.

    `grammar` says what the grammar spares a model with the tokenizer of the random checkpoints.
    """

    setup: Setup
    roofline: Machine
    answers: Answers
    seconds_a_page: Rates
    stages: list[Stage]
    grammar: GrammarFigures | None
    cpu_seconds_a_page: float
    engine_vs_static_ratio: float
    engine_vs_loop_ratio: float
    model_vs_floor_ratio: float
    every: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, what was measured and the answers' figures on top."""
        values = asdict(self)
        return {**values.pop("setup"), **values.pop("answers"), **values}

    def print(self, console: Console) -> None:
        """Print the report for people."""
        setup = self.setup
        console.print(
            f"{setup.samples} receipts (seed {setup.seed}), {setup.model} in {setup.dtype}, "
            f"rounds: {setup.rounds}\n{setup.machine}, {setup.device}, {setup.threads} threads, "
            f"torch {setup.torch}: {self.roofline.flops / 1e12:.3g} TFLOP/s, "
            f"{self.roofline.bandwidth / 1e9:.3g} GB/s"
        )
        console.print(self._table())
        console.print(
            f"engine: {self.engine_vs_static_ratio:.2f} times static generate, "
            f"{self.engine_vs_loop_ratio:.2f} times one page at a time, "
            f"{self.model_vs_floor_ratio:.2f} times the time of vision and prefill"
        )
        console.print(self._about_answers())
        if setup.memory_plan is not None:
            console.print(f"memory: {setup.memory_plan}")
        if self.grammar is not None:
            console.print(_about_grammar(self.grammar))

    def _table(self) -> Table:
        table = Table("", "ms a page", "pages/s", "of the roofline")
        ours = f"engine, {self.setup.slots} slots"
        names = {
            "loop": "generate, one page at a time",
            "static": f"generate, batches of {self.setup.static_batch}",
            "generate_batch": f"generate_batch, {self.setup.generate_batch_slots} slots, free",
            "engine_without_guesses": f"{ours}, no guesses",
            "engine": ours,
        }
        for way, name in names.items():
            seconds = getattr(self.seconds_a_page, way)
            if seconds is not None:
                table.add_row(name, f"{1000 * seconds:.1f}", f"{1 / seconds:.1f}", "")
        table.add_section()
        for row in self.stages:
            share = "" if row.utilisation is None else f"{row.utilisation:.0%}"
            table.add_row(
                row.stage, f"{1000 * row.seconds_a_page:.1f}", f"{row.pages_a_second:.1f}", share
            )
        return table

    def _about_answers(self) -> str:
        answers = self.answers
        lengths = " of forced length" if self.setup.forced_lengths else ""
        return (
            f"answers{lengths}: {answers.output_tokens:.1f} tokens (coefficient of variation "
            f"{answers.output_tokens_cv:.2f}), {answers.forced_share:.0%} forced, "
            f"{answers.guessed_share:.0%} guessed right, {answers.passes_a_page:.1f} passes; "
            f"{answers.same_answers} of {self.setup.samples} are as generate's"
        )


def _about_grammar(figures: GrammarFigures) -> str:
    return (
        f"grammar: {figures.invoices} made records of {figures.schema}, vocabulary of "
        f"{figures.vocabulary}: {figures.tokens_a_page:.1f} tokens, "
        f"{figures.forced_share:.0%} forced, {figures.passes_a_page:.1f} passes, "
        f"{figures.passes_per_token:.2f} a token"
    )
