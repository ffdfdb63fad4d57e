"""Commands about Ray clusters: `pagelake submit`, `status`, `logs` and `stop`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ClusterError, JobError, NotSubmittedError, printable
from pipeline.run_options import (
    Fresh,
    Inputs,
    JobFile,
    Json,
    Limit,
    OutputUri,
    Retry,
    Settings,
)
from pipeline.target import output_of
from pipeline.terminal import (
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
    from pipeline.runners.cluster import Cluster, ClusterJob
    from pipeline.runners.submit import Submission

_OF_A_RUN = (EXIT_OK, EXIT_RUN_FAILED, EXIT_USER_ERROR, EXIT_NOT_ALL_OK)
_STOPPING_S = 60.0
_MOST_TOLD = 500  # Ray's own message may quote pages of a log

Address = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The cluster's dashboard, such as http://head:8265."),
]
JobId = Annotated[str, typer.Argument(help="What pagelake submit printed.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (submit, status, logs, stop):
        app.command()(command)


def submit(
    job: JobFile,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what the run says, and end as it does.")
    ] = False,
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Send this wheel of pagelake along.")
    ] = None,
    source: Annotated[
        bool, typer.Option("--source", help="Send the pagelake that this command runs from.")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Pass a variable of this shell on; may be repeated."),
    ] = None,
    inputs: Inputs = None,
    output: OutputUri = None,
    settings: Settings = None,
    retry: Retry = None,
    fresh: Fresh = False,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Run a job on a Ray cluster; prints its id."""
    from pipeline.jobfile import load_job
    from pipeline.runners import submit as submits
    from pipeline.runners.run import Options, failure_kinds

    Options("ray", limit, failure_kinds(retry), fresh).check()
    arguments = [
        *(["--retry", retry] if retry is not None else []),
        *(["--fresh"] if fresh else []),
        *(["--limit", str(limit)] if limit is not None else []),
    ]
    loaded = load_job(job, settings or (), inputs or (), output, elsewhere=True)
    sending = submits.Sending(wheel, source, tuple(env or ()))
    with (
        interruptible("stopped; nothing was submitted"),
        submits.submission(loaded, arguments, _address(address), sending, _say) as ready,
    ):
        _say(f"submitting {ready.job_id}")
        _send(ready)
    if not follow:
        typer.echo(ready.to_json() if json else ready.job_id)
        return
    raise typer.Exit(_follow(ready.cluster, ready.job_id, json=json))


def logs(
    job_id: JobId,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends, and end as it does.")
    ] = False,
) -> None:
    """Print what a submitted job has said so far."""
    from pipeline.runners.cluster import Cluster

    cluster = Cluster(_address(address))
    if follow:
        raise typer.Exit(_follow(cluster, job_id, json=False))
    cluster.job(job_id)
    typer.echo(cluster.logs(job_id), nl=False)


def stop(job_id: JobId, address: Address = None) -> None:
    """End a submitted job; what it has committed stays."""
    import time

    from pipeline.runners.cluster import Cluster

    cluster = Cluster(_address(address))
    if not cluster.stop(job_id):
        _say(f"{job_id} had ended already: {cluster.job(job_id).state.lower()}")
        return
    deadline = time.monotonic() + _STOPPING_S
    while not cluster.job(job_id).is_over:
        if time.monotonic() > deadline:
            complain(f"{job_id} was told to stop, and has not in {_STOPPING_S:g} s")
            raise typer.Exit(EXIT_RUN_FAILED)
        time.sleep(0.5)
    _say(f"{job_id} stopped; what was committed stays, submit the job again to continue")


def status(
    target: Annotated[
        str, typer.Argument(help="The output.uri of a job, its file, or a submitted job's id.")
    ],
    address: Address = None,
    json: Json = False,
) -> None:
    """Say what is finished and how far a run is: of an output, or with --address of a job there."""
    from pipeline.runners.status import status

    if address is not None:
        _status_of_job(_address(address), target, json)
        return
    found = status(*output_of(target))
    typer.echo(found.to_json() if json else "\n".join(found.lines()))


def _status_of_job(address: str, job_id: str, as_json: bool) -> None:
    from pipeline.runners.cluster import Cluster
    from pipeline.runners.submit import status_of

    found = status_of(Cluster(address), job_id)
    typer.echo(found.to_json() if as_json else "\n".join(found.lines()))


def _send(ready: Submission) -> None:
    """Send a job; who stops or cuts that is told that the cluster may have it."""
    there = f"{ready.job_id} --address {ready.address}"
    perhaps = (
        f"the cluster may have the job or not: see pagelake status {there}, and end it by "
        f"pagelake stop {there}"
    )
    with interruptible(f"stopped; {perhaps}"):
        try:
            ready.send()
        except NotSubmittedError:
            raise
        except ClusterError as error:
            raise ClusterError(f"{error}; {perhaps}") from error


def _follow(cluster: Cluster, job_id: str, *, json: bool) -> int:
    from pipeline.runners.submit import follow
    from pipeline.runners.summary import Summary

    there = f"{job_id} --address {cluster.address}"
    again = f"follow it with: pagelake logs {there} --follow"
    with interruptible(f"{job_id} goes on; {again}, stop it with: pagelake stop {there}"):
        try:
            found, summary = follow(cluster, job_id, _say)
        except ClusterError as error:
            raise ClusterError(f"{error}; {job_id} may go on; {again}") from error
    if summary and json:
        typer.echo(summary)
    elif summary:
        Summary.from_json(summary).print(people)
    return _exit_code(found)


def _exit_code(found: ClusterJob) -> int:
    if found.state == "STOPPED":
        complain(f"{found.id} was stopped; what was committed stays, submit it again to continue")
        return EXIT_INTERRUPTED
    if found.exit_code in _OF_A_RUN:
        return int(found.exit_code)
    if found.state == "SUCCEEDED":
        return EXIT_OK
    what = "" if found.exit_code is None else f" (its command ended with {found.exit_code})"
    reason = printable(found.message)[:_MOST_TOLD]
    complain(f"{found.id} failed{what}; what was committed stays, submit it again: {reason}")
    return EXIT_RUN_FAILED


def _address(given: str | None) -> str:
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise JobError("--address: give the cluster's dashboard, such as http://head:8265")
    return address


def _say(line: str) -> None:
    people.print(line, highlight=False, markup=False, soft_wrap=True)
