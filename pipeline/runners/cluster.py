"""The door to a Ray cluster's job server: submit, look, listen, stop, each error in one line."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import ClusterError, JobError, NotSubmittedError, PagelakeError, one_line

_EXTRA = "needs Ray's job client; pip install pagelake[cluster]"
_CONNECT_S, _HELLO_S, _ANSWER_S = 5.0, 15.0, 120.0
_BEGINNING_S = 120.0
_NO_AGENT = "No available agent"  # the dashboard is up before what starts jobs
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """What the cluster says of a job. Times are seconds since 1970; `exit_code` is its driver's."""

    id: str
    state: str
    message: str
    exit_code: int | None
    started: float | None
    ended: float | None
    metadata: Mapping[str, str]

    @property
    def is_over(self) -> bool:
        """True if it has ended, in whichever way."""
        return self.state in _ENDED


class Cluster:
    """A job server that answers, such as http://head:8265.

    Raises
    ------
    JobError
        If it does not answer, wants a token that this machine does not have, or ray[default] is
        not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = _url(address)
        _knock(self.address)
        self._client = _connected(self.address)

    @property
    def ray_version(self) -> str:
        """Which Ray the cluster runs."""
        return str(self._client._server_ray_version)

    def submit(
        self, job_id: str, command: str, runtime_env: dict[str, Any], **metadata: str
    ) -> None:
        """Send a job with its files; `runtime_env` is Ray's, with local folders.

        Waits for a head that has just begun. Raises JobError, ClusterError, NotSubmittedError.
        """
        deadline = time.monotonic() + _BEGINNING_S
        with _errors(self.address, job_id):
            while True:
                try:
                    self._client.submit_job(
                        entrypoint=command,
                        submission_id=job_id,
                        runtime_env=runtime_env,
                        metadata=metadata,
                    )
                    return
                except RuntimeError as error:
                    if _NO_AGENT not in str(error):
                        raise
                    if time.monotonic() > deadline:
                        raise NotSubmittedError(
                            f"nothing was submitted: the head at {self.address} has had no job "
                            f"agent for {_BEGINNING_S:g} s; see docs/CLUSTER.md"
                        ) from None
                time.sleep(1)

    def job(self, job_id: str) -> ClusterJob:
        """Look at a job. Raises JobError if there is none, ClusterError without an answer."""
        with _errors(self.address, job_id):
            found = self._client.get_job_info(job_id)
        return ClusterJob(
            id=found.submission_id or job_id,
            state=str(found.status.value),
            message=found.message or "",
            exit_code=found.driver_exit_code,
            started=None if found.start_time is None else found.start_time / 1000,
            ended=None if not found.end_time else found.end_time / 1000,
            metadata=found.metadata or {},
        )

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; True if it was running. Raises as `job` does."""
        with _errors(self.address, job_id):
            return bool(self._client.stop_job(job_id))

    def logs(self, job_id: str) -> str:
        """Return what the job has printed so far. Raises as `job` does."""
        with _errors(self.address, job_id):
            return str(self._client.get_job_logs(job_id))

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """Give what the job prints, from its beginning, in pieces as they come.

        Raises StopAsyncIteration when it ends; RuntimeError, OSError or aiohttp's ClientError when
        the connection is lost.
        """
        lines: AsyncIterator[str] = self._client.tail_job_logs(job_id)
        return lines


def _url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    try:
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:  # a port that is none
        known = False
    if not known or parts.username or parts.password:
        raise JobError(
            "--address: give the cluster's dashboard, such as http://head:8265 (ray:// and user "
            "names are not read)"
        )
    return url.rstrip("/")


def _knock(url: str) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or "it does not answer"
        raise JobError(
            f"--address {url}: no answer ({reason}); is it the dashboard of the head node, port "
            "8265 as a rule, and reachable from here?"
        ) from None


def _connected(url: str) -> Any:
    """Return Ray's job client; the token of this machine goes only to clusters that ask for one."""
    if find_spec("aiohttp") is None:
        raise JobError(f"--address: {_EXTRA}")
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise JobError(f"--address: {_EXTRA}") from None

    class Client(JobSubmissionClient):  # type: ignore[misc]
        """Gives up on a server that does not answer: at the first request, soon."""

        answer_s = _HELLO_S

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            answer = super()._do_request(
                method, endpoint, **{"timeout": (_CONNECT_S, self.answer_s), **options}
            )
            self.answer_s = _ANSWER_S
            return answer

    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private"):
        logging.getLogger(f"ray.{name}").setLevel(logging.CRITICAL)
    try:
        with _errors(url, ""), _address_given():
            try:
                return Client(url)
            except AuthenticationError:
                token = _token()
                if token is None:
                    raise
                return Client(url, headers={"Authorization": f"Bearer {token}"})
    except ClusterError:  # nothing has been asked for yet: it is the address
        raise JobError(
            f"no Ray job server answers at {url}: give the dashboard's address, such as "
            "http://head:8265"
        ) from None


def _token() -> str | None:
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return None
    return str(loader.get_raw_token(ignore_auth_mode=True))


@contextmanager
def _address_given() -> Iterator[None]:
    """Let no environment variable take the place of the address, as Ray has it."""
    kept = {name: os.environ.pop(name) for name in _ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _errors(url: str, job_id: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except PagelakeError:
        raise
    except AuthenticationError:
        raise JobError(
            f"--address {url}: the cluster's token is missing here, or is another; put it into "
            "RAY_AUTH_TOKEN, or into ~/.ray/auth_token (RAY_AUTH_MODE=disabled sends none)"
        ) from None
    except OSError as error:  # of requests, too
        raise ClusterError(f"{url} does not answer any more ({type(error).__name__})") from None
    except (RuntimeError, ValueError) as error:
        raise _explained(url, job_id, error) from None


def _explained(url: str, job_id: str, error: Exception) -> PagelakeError:
    status = re.search(r"status code (\d+)", str(error))
    if "returned 404" in str(error):
        return JobError(f"--address {url}: it answers, and is no dashboard of a Ray cluster")
    if status is not None and status[1] == "404" and job_id:
        return JobError(f"{job_id}: there is no such job at {url}; `ray job list` knows them")
    kind = ClusterError if status is not None and status[1].startswith("5") else JobError
    return kind(f"{url}: {one_line(error)}")
