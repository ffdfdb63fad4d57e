"""What is said when a cluster's job server stops answering: of it, and nothing of the run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import ray
import yaml
from http_thread import answering

from pipeline.cli import main
from pipeline.runners import following


class InTrouble(BaseHTTPRequestHandler):
    """A job server that says which Ray it is, and from then on nothing that helps."""

    def do_GET(self) -> None:  # what http.server calls
        if self.path == "/api/version":
            self._answer(200, {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"})
        elif self.path.startswith("/api/packages/"):
            self._answer(200, {})
        else:
            self._trouble()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._trouble()

    def _trouble(self) -> None:
        self._answer(502, {"message": "bad gateway"})

    def _answer(self, status: int, told: dict[str, str]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Silent(InTrouble):
    """One whose connections are cut."""

    def _trouble(self) -> None:
        self.close_connection = True


@pytest.fixture(params=[InTrouble, Silent])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with answering(request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(following, "_FIRST_PAUSE_S", 0.05)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(monkeypatch, capsys)


class Said:
    """Runs commands that end with exit code 1, for what they say."""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._patch, self._captured = patch, captured

    def by(self, *arguments: str) -> list[str]:
        self._patch.setattr(sys, "argv", ["pagelake", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        told = self._captured.readouterr()
        assert told.out == ""
        return told.err.splitlines()


NO_ANSWER = r"pagelake: {address}(: Request failed with status code 502| does not answer any more)"


def test_who_follows_is_told_that_the_job_may_go_on_and_how_to_look_again(
    address: str, said: Said
) -> None:
    (line,) = said.by("logs", "j", "--follow", "--address", address)
    assert re.match(NO_ANSWER.format(address=address), line)
    again = f"pagelake logs j --address {address} --follow"
    assert line.endswith(f"; j may go on; follow it with: {again}")


@pytest.mark.parametrize("command", ["status", "logs", "stop"])
def test_a_cluster_that_does_not_answer_is_no_run_that_failed(
    command: str, address: str, said: Said
) -> None:
    (line,) = said.by(command, "j", "--address", address)
    assert re.match(NO_ANSWER.format(address=address), line)
    assert "committed" not in line


def test_a_job_whose_sending_is_cut_may_have_arrived(
    address: str, said: Said, tmp_path: Path
) -> None:
    job = {"input": {"paths": "s3://lake/in"}, "schema": "receipt.v1"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**job, "output": {"uri": "s3://lake/out"}}))
    first, line = said.by("submit", str(file), "--address", address)
    job_id = first.removeprefix("submitting ")
    assert re.match(NO_ANSWER.format(address=address), line)
    assert f"may have the job or not: see pagelake status {job_id} --address {address}" in line
