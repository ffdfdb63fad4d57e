"""Commands that measure: `pagelake eval`, how right answers are, and `bench`, how fast."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from pipeline.target import output_of
from pipeline.terminal import interruptible, people


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("eval")(evaluate)
    app.command()(bench)


def evaluate(
    output: Annotated[
        str, typer.Argument(help="The output.uri of a finished run, or its job file.")
    ],
    truth: Annotated[str, typer.Option(metavar="FILE", help="What is true, as JSON Lines.")],
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Group by a column of the truth.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write eval.json and Parquet files there.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures for machines.")] = False,
) -> None:
    """Say how right a run's answers are, beside the truth: field by field. Changes nothing."""
    from pipeline.evaluation.evaluate import evaluate

    uri, stores = output_of(output)
    found = evaluate(uri, truth, by, out, stores)
    if json:
        typer.echo(found.to_json())
    else:
        found.print(Console(width=None if sys.stdout.isatty() else 120, emoji=False))


def bench(
    model: Annotated[
        str | None, typer.Option(help="A bundled model, or a folder of one; nano.")
    ] = None,
    random_weights: Annotated[
        str | None,
        typer.Option(metavar="SHAPE", help="Random weights instead: tiny, idefics2-8b."),
    ] = None,
    answer_tokens: Annotated[
        int | None,
        typer.Option(min=16, help="With random weights: tokens of an answer, on average; 300."),
    ] = None,
    samples: Annotated[int, typer.Option(min=8, help="How many made receipts.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Figures are medians of so many.")] = 5,
    slots: Annotated[int, typer.Option(min=1, help="How many samples run together.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the model; all cores.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other receipts.")] = 0,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the model runs.")] = "cpu",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Type of the weights; auto takes what suits the device."),
    ] = "auto",
    splitting: Annotated[
        bool | None,
        typer.Option(help="Show pages as quadrants and the whole; as the model was trained."),
    ] = None,
    fixed_steps: Annotated[
        bool, typer.Option("--fixed-steps", help="Record steps as CUDA graphs; not tried yet.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the roofline: .svg, .png or .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the stages on this machine, beside the usual ways to run the model."""
    import json

    from pipeline.bench.options import Options

    options = Options(
        model=model,
        random_weights=random_weights,
        samples=samples,
        rounds=rounds,
        slots=slots,
        threads=threads or os.cpu_count() or 1,
        seed=seed,
        device=device,
        dtype=dtype,
        splitting=splitting,
        answer_tokens=answer_tokens,
        fixed_steps=fixed_steps,
        plot=plot,
    )
    options.check()  # before torch is loaded

    from pipeline.bench.bench import bench

    with interruptible():
        report = bench(options, people.print)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        report.print(Console(emoji=False))
