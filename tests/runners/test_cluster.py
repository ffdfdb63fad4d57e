"""Submitting to a real Ray head, which wants a token, as a user does: from another process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from flaky_proxy import BAD_GATEWAY, DROPPED, flaky_proxy
from ray._raylet import AuthenticationTokenLoader

from pipeline import cluster_commands
from pipeline.errors import JobError, NotSubmittedError
from pipeline.runners import cluster as clusters
from pipeline.runners import following
from pipeline.runners.cluster import Cluster
from pipeline.runners.submit import status_of

TOKEN = "0123456789abcdef" * 4
Run = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Head:
    """A Ray of one machine with a job server."""

    address: str
    environment: dict[str, str]

    def pagelake(self, *arguments: str, **environment: str) -> Run:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            # Ray's own mode is not set: the token is sent because the cluster asks for one.
            env={k: v for k, v in self.environment.items() if k != "RAY_AUTH_MODE"} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    # The names of sockets in Ray's folder may have 107 characters.
    folder = tmp_path_factory.getbasetemp().parent / f"h{os.getpid()}"
    gcs, dashboard = _free_port(), _free_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={gcs}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        # Another Ray of this machine has the agents' usual port.
        f"--dashboard-agent-listen-port={_free_port()}",
        *("--num-cpus=4", "--object-store-memory=100000000", "--disable-usage-stats"),
    ]
    with (tmp_path_factory.mktemp("head") / "log").open("wb") as log:
        process = psutil.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait(lambda: _answers(dashboard))
        yield Head(f"http://127.0.0.1:{dashboard}", environment)
    finally:
        family = [*process.children(recursive=True), process]
        for one in family:
            one.kill()
        psutil.wait_procs(family, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cluster's token in this process, in which Ray may have looked for one before."""
    loader = AuthenticationTokenLoader.instance()
    with monkeypatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        loader.reset_cache()
        yield
    loader.reset_cache()


@pytest.mark.usefixtures("token")
def test_a_submitted_job_ends_with_its_own_exit_code_and_summary(
    head: Head, demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    job = {
        "input": {"paths": [str(demo / "documents" / "image-01.png"), "broken.pdf"]},
        "task": "ocr",
        "model": {"family": "fake", "name": "fake?edge=224"},
        "resources": {"shared_paths": [str(tmp_path), str(demo)]},
        "output": {"uri": str(tmp_path / "out")},
    }
    file = tmp_path / "two pages.yaml"
    file.write_text(yaml.safe_dump(job))
    done = head.pagelake("submit", str(file), "--address", head.address, "--follow", "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert summary["documents"] == {"ok": 1, "failed": 1}
    first, *said = done.stderr.splitlines()
    assert first.startswith("submitting two-pages-")
    assert "assembling documents" in said
    assert not any("INFO" in line or "Running entrypoint" in line for line in said)
    job_id = first.removeprefix("submitting ")
    found = json.loads(status_of(Cluster(head.address), job_id).to_json())
    assert (found["state"], found["exit_code"]) == ("FAILED", 3)
    assert found["output"]["finished"]["documents"] == {"ok": 1, "failed": 1}


@pytest.mark.usefixtures("token")
def test_whoever_stops_following_leaves_the_job_running_until_it_is_stopped(head: Head) -> None:
    # Whoever runs these tests in the background may have had Ctrl-C ignored.
    python = ["env", "--default-signal=INT", sys.executable]
    command = [*python, "-m", "pipeline.cli", "logs", "sleeper", "--follow"]
    cluster = Cluster(head.address)
    cluster.submit("sleeper", "echo awake; sleep 600", {})
    follower = subprocess.Popen(
        [*command, "--address", head.address],
        env=head.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stderr is not None
    assert follower.stderr.readline() == "awake\n"
    follower.send_signal(signal.SIGINT)
    said = follower.communicate(timeout=60)[1]
    assert follower.returncode == 130
    assert f"stop it with: pagelake stop sleeper --address {head.address}" in said
    assert cluster.job("sleeper").state == "RUNNING"
    cluster_commands.stop("sleeper", head.address)
    assert cluster.job("sleeper").state == "STOPPED"


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "looks alone"])
def test_following_outlasts_a_proxy_that_is_away_for_a_while(
    head: Head, cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(following, "_LOOK_S", 0.2)
    gate, job_id = tmp_path / "gate", f"away-{cut}"
    heard: list[str] = []
    with flaky_proxy(int(head.address.rpartition(":")[2])) as proxy:

        def say(line: str) -> None:
            heard.append(line)
            if line == "awake":
                proxy.recovered = gate.touch
                proxy.answers.extend([BAD_GATEWAY, DROPPED, BAD_GATEWAY])
                if cut:
                    proxy.cut()

        cluster = Cluster(proxy.address)
        cluster.submit(job_id, f"echo awake; until test -e {gate}; do sleep 0.1; done; echo up", {})
        assert following.follow(cluster, job_id, say).state == "SUCCEEDED"
    assert gate.exists()
    assert [line for line in heard if "INFO" not in line and "entrypoint" not in line] == [
        "awake",
        "up",
    ]


@pytest.mark.usefixtures("token")
def test_what_is_wrong_with_a_cluster_or_a_job_id_is_one_line(head: Head) -> None:
    with pytest.raises(JobError, match="there is no such job"):
        Cluster(head.address).job("nobody")
    with pytest.raises(JobError, match="no answer"):
        Cluster(f"http://127.0.0.1:{_free_port()}")
    with pytest.raises(JobError, match="give the cluster's dashboard"):
        Cluster("ray://127.0.0.1:10001")
    wrong = head.pagelake("status", "nobody", "--address", head.address, RAY_AUTH_TOKEN="0" * 64)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert (
        "the cluster's token is missing here, or is another; put it into RAY_AUTH_TOKEN"
        in wrong.stderr
    )


def test_what_is_no_job_server_is_told_as_the_address_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_HELLO_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(JobError, match=f"no Ray job server answers at http://127.0.0.1:{port}"):
            Cluster(f"127.0.0.1:{port}")


def test_a_head_without_a_job_agent_has_taken_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Headless:
        def submit_job(self, **_: object) -> None:
            raise RuntimeError("status code 500: No available agent to submit job")

    monkeypatch.setattr(clusters, "_BEGINNING_S", -1.0)
    cluster = object.__new__(Cluster)
    cluster.address, cluster._client = "http://head:8265", Headless()
    with pytest.raises(NotSubmittedError, match=r"nothing was submitted: .* see docs/CLUSTER.md"):
        cluster.submit("job", "true", {})


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)
