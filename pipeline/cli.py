"""The command line. No logic here: each command calls one function and prints what it gives.

Nothing heavy is imported until a command runs, so that `pagelake --help` is instant.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline import __version__, cluster_commands, measure_commands
from pipeline.errors import ClusterError, OutputInUseError, PagelakeError, UserError
from pipeline.run_options import Fresh, Inputs, JobFile, Limit, OutputUri, Retry, Settings
from pipeline.target import output_of
from pipeline.terminal import (
    EXIT_IN_USE,
    EXIT_INTERRUPTED,
    EXIT_NOT_ALL_OK,
    EXIT_OK,
    EXIT_RUN_FAILED,
    EXIT_USER_ERROR,
    complain,
    interruptible,
    people,
)

if TYPE_CHECKING:
    from pipeline.runners.summary import Summary

app = typer.Typer(
    name="pagelake",
    help="Turn piles of PDFs, scans and images into schema-true tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
job_app = typer.Typer(help="About job files.", no_args_is_help=True)
app.add_typer(job_app, name="job")
cluster_commands.add_to(app)
measure_commands.add_to(app)

RunnerName = Annotated[
    Literal["ray", "local"], typer.Option(help="ray, or everything in this process.")
]


def main() -> None:
    """Run the command line, and turn errors into one line and an exit code."""
    try:
        app()
    except UserError as error:
        complain(str(error))
        sys.exit(EXIT_USER_ERROR)
    except ClusterError as error:  # no word on any run
        complain(str(error))
        sys.exit(EXIT_RUN_FAILED)
    except PagelakeError as error:
        mend = "" if "run again" in str(error) else ", run again to continue"
        complain(f"the run failed: {error}; what was committed stays{mend}")
        sys.exit(EXIT_RUN_FAILED)
    except OSError as error:  # a full disk, a store that went away
        complain(f"the run failed: {error}; mend it, and run again to continue")
        sys.exit(EXIT_RUN_FAILED)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pagelake {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    job: JobFile,
    inputs: Inputs = None,
    output: OutputUri = None,
    settings: Settings = None,
    runner: RunnerName = "ray",
    retry: Retry = None,
    fresh: Fresh = False,
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count documents and pages; load no model.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a summary for machines.")] = False,
) -> None:
    """Run a job, or continue one: finished pages are not done again."""
    from pipeline.jobfile import load_job
    from pipeline.runners import run as runs

    loaded = load_job(job, settings or (), inputs or (), output)
    options = runs.Options(runner, limit, runs.failure_kinds(retry), fresh)
    if dry_run:
        with interruptible():
            planned = runs.dry_run(loaded, options, people)
        typer.echo(planned.to_json() if json else planned.text())
        return
    with interruptible():
        summary = runs.run(loaded, options, people)
    _end(summary, json=json)


def _end(summary: Summary, *, json: bool) -> None:
    """Print what a run came to, and exit as it did."""
    if json:
        typer.echo(summary.to_json())
    else:
        summary.print(people)
    raise typer.Exit(EXIT_OK if summary.all_ok else EXIT_NOT_ALL_OK)


@app.command()
def ingest(
    job: JobFile,
    inputs: Inputs = None,
    output: OutputUri = None,
    settings: Settings = None,
    runner: RunnerName = "ray",
    retry: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help="Take in again what failed in one of these ways."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take in so many new documents only.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a summary for machines.")] = False,
) -> None:
    """Take in what is new or changed since the last time; for cron and other schedulers."""
    from pipeline.jobfile import load_job
    from pipeline.runners import run as runs

    loaded = load_job(job, settings or (), inputs or (), output)
    options = runs.Options(runner, limit, runs.failure_kinds(retry), incremental=True)
    try:
        with interruptible():
            summary = runs.run(loaded, options, people)
    except OutputInUseError as error:
        complain(str(error))
        raise typer.Exit(EXIT_IN_USE) from error
    _end(summary, json=json)


@app.command()
def clean(
    output: Annotated[str, typer.Argument(help="The output.uri of a job, or its file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them; delete nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what it is for machines.")] = False,
) -> None:
    """Delete what dead runs left in an output. Tables and finished pages stay."""
    from pipeline.lake.clean import clean

    with interruptible():
        leftovers = clean(*output_of(output), dry_run=dry_run)
    typer.echo(leftovers.to_json() if json else leftovers.text())


@app.command()
def finetune(
    job: Annotated[
        str, typer.Argument(help="A training job, or the name of a packaged one: train_nano.")
    ],
    output: OutputUri = None,
    settings: Settings = None,
) -> None:
    """Train a model, or go on from its last checkpoint: fine-tune one, or nano from scratch."""
    from pipeline.training import train

    with interruptible():
        finished = train(job, settings or (), output)
    if not finished:
        complain("stopped; run the same command again to go on")
        raise typer.Exit(EXIT_INTERRUPTED)


@job_app.command("schema")
def job_schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    import json

    from pipeline.job import Job

    typer.echo(json.dumps(Job.model_json_schema(by_alias=True), indent=2))


@app.command()
def doctor() -> None:
    """Say what this machine has, and what is missing."""
    from pipeline.doctor import examine

    findings = examine()
    for finding in findings:
        mark = "ok     " if finding.good else ("missing" if finding.required else "-      ")
        typer.echo(f"{mark}  {finding.name}: {finding.text}")
    if any(finding.required and not finding.good for finding in findings):
        raise typer.Exit(EXIT_RUN_FAILED)


if __name__ == "__main__":
    main()
