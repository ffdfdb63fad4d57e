"""Submitting a job to a Ray cluster, and following it to its end.

What can be wrong with the job is said here, before anything is sent. The cluster runs `pagelake
run` on it, with the job file that `pipeline.runners.parcel` has made whole.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import JobError, OutputError, printable
from pipeline.job import Job
from pipeline.lake.lock import clock
from pipeline.lake.stores import Stores
from pipeline.runners import following
from pipeline.runners.cluster import Cluster, ClusterJob
from pipeline.runners.parcel import command, pack_job, pack_source, pack_wheel, wheel_version
from pipeline.runners.reach import refuse_unshared
from pipeline.runners.status import Status, status
from pipeline.runners.summary import Summary
from pipeline.store_settings import Store

_OF_RAY = re.compile(r"Running entrypoint for job |\S+ \S+\s+INFO job_manager\.py:")


@dataclass(frozen=True, slots=True)
class Sending:
    """How a job is sent: with the cluster's own pagelake, or with a `wheel`, or this `source`.

    `environment` names variables of this shell that the run gets too.
    """

    wheel: Path | None = None
    source: bool = False
    environment: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise JobError if it cannot be done."""
        if self.source and self.wheel is not None:
            raise JobError("--source and --wheel both say which pagelake to send; give one of them")
        for name in self.environment:
            if name not in os.environ:
                raise JobError(f"--env {name}: there is no such environment variable; export it")


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that has its id, and is packed to be sent to a cluster that answers."""

    job_id: str
    cluster: Cluster
    output: str
    _send: Callable[[], None]

    @property
    def address(self) -> str:
        """Where the cluster's job server is."""
        return self.cluster.address

    def send(self) -> None:
        """Send it. Raises JobError if the cluster does not take it, else ClusterError."""
        self._send()

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps({name: getattr(self, name) for name in ("job_id", "address", "output")})


@contextmanager
def submission(
    job: Job,
    arguments: Sequence[str],
    address: str,
    sending: Sending,
    say: Callable[[str], None],
) -> Iterator[Submission]:
    """Pack a job for the cluster at `address`, to be run with the `arguments` of `pagelake run`.

    Raises
    ------
    UserError
        If the job cannot run there, or the cluster does not answer.
    """
    sending.check()
    refuse_unshared(job, "the cluster's machines do not see it")
    with tempfile.TemporaryDirectory(prefix="pagelake-") as name:
        folder = Path(name) / "job"
        folder.mkdir()
        pack_job(job, folder)
        code = Path(name) / "code"
        package = None
        if sending.wheel is not None:
            package = pack_wheel(sending.wheel, code)
        elif sending.source:
            package = pack_source(code)
        cluster = Cluster(address)
        for line in _advice(job, sending, cluster):
            say(line)
        job_id = _new_id(job.name)
        version = __version__ if package is None else wheel_version(package)
        send = partial(
            cluster.submit,
            job_id,
            command(arguments, version),
            _runtime_env(folder, package, sending),
            output=job.output.uri,
            stores=json.dumps({uri: store.model_dump() for uri, store in job.stores.items()}),
            pagelake=version,
        )
        yield Submission(job_id, cluster, job.output.uri, send)


def follow(cluster: Cluster, job_id: str, say: Callable[[str], None]) -> tuple[ClusterJob, str]:
    """Pass on what a job prints, and return how it ended and its summary as JSON ("" if none).

    Raises as `Cluster.job` does.
    """
    summary = ""

    def heard(line: str) -> None:
        nonlocal summary
        if is_summary(line):
            summary = line
        elif line.strip() and not _OF_RAY.match(line):
            say(line)

    return following.follow(cluster, job_id, heard), summary


def is_summary(line: str) -> bool:
    """Return True for the line that `pagelake run --json` ends with."""
    if not line.startswith('{"run_id"'):
        return False
    try:
        Summary.from_json(line)
    except ValueError:
        return False
    return True


def _runtime_env(folder: Path, package: Path | None, sending: Sending) -> dict[str, Any]:
    environment = {name: os.environ[name] for name in sending.environment}
    return {
        "working_dir": str(folder),
        **({"py_modules": [str(package)]} if package is not None else {}),
        **({"env_vars": environment} if environment else {}),
    }


def _advice(job: Job, sending: Sending, cluster: Cluster) -> list[str]:
    from importlib.metadata import version

    lines = []
    if cluster.ray_version != version("ray"):
        lines.append(
            f"warning: the cluster runs Ray {cluster.ray_version}, and this pagelake was "
            f"submitted beside Ray {version('ray')}"
        )
    lines += [
        f"warning: --env {name}: Ray keeps the value with the job, and whoever may see its "
        "dashboard or job list may read it"
        for name in sending.environment
    ]
    password = job.input.password_env
    if password is not None and password not in sending.environment:
        lines.append(
            f"input.password_env: the cluster's machines must have {password} in their "
            f"environment, or send it with --env {password}"
        )
    return lines


def _new_id(name: str) -> str:
    """Sortable by time within a name; the random part keeps two of one second apart."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "job"
    return f"{slug}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A submitted job: what the cluster says of it, and its output as far as it is read here."""

    job: ClusterJob
    output: Status | str

    def to_json(self) -> str:
        """Return one JSON object; `output` is null where it could not be read, and `unread` why."""
        found = {key: value for key, value in asdict(self.job).items() if key != "metadata"}
        read = isinstance(self.output, Status)
        return json.dumps(
            {
                **found,
                "output_uri": self.job.metadata.get("output"),
                "output": asdict(self.output) if isinstance(self.output, Status) else None,
                "unread": None if read else self.output,
            }
        )

    def lines(self) -> list[str]:
        """Return what people are told."""
        job = self.job
        times = [
            f"{word} {clock(datetime.fromtimestamp(moment, UTC))}"
            for word, moment in (("since", job.started), ("until", job.ended))
            if moment is not None
        ]
        code = [] if job.exit_code is None else [f"exit code {job.exit_code}"]
        lines = [f"{job.id}: {', '.join([job.state.lower(), *code, *times])}"]
        if job.state == "FAILED" and job.exit_code is None:
            lines.append(printable(job.message)[:500])
        return lines + ([self.output] if isinstance(self.output, str) else self.output.lines())


def status_of(cluster: Cluster, job_id: str) -> JobStatus:
    """Look at a job and at its output. Raises as `Cluster.job` does."""
    job = cluster.job(job_id)
    uri = job.metadata.get("output")
    if uri is None:
        return JobStatus(job, "its output is not known: pagelake has not submitted it")
    stores = json.loads(job.metadata.get("stores", "{}"))
    try:
        settings = {key: Store.model_validate(value) for key, value in stores.items()}
        return JobStatus(job, status(uri, Stores.of(settings)))
    except (OutputError, ValueError) as error:
        return JobStatus(job, str(error))
