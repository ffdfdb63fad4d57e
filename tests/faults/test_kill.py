"""Runs killed with `kill -9`: a small form of `make proof-kill`."""

from __future__ import annotations

import io
import random
import threading
from pathlib import Path

import psutil
import pytest
from kill import Round, victims_of
from piles import make_pile
from rich.console import Console

from pipeline.jobfile import load_job
from pipeline.runners.run import Options, run

DOCUMENTS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    make_pile(folder / "pile", DOCUMENTS, seed=3)
    return folder


@pytest.fixture(scope="module")
def calm(folder: Path) -> Round:
    this = Round(folder / "calm", folder / "pile", seconds=0.001)
    go_on(this, "local")
    return this


@pytest.fixture
def disturbed(folder: Path, calm: Round, tmp_path: Path) -> Round:
    return Round(folder / tmp_path.name, folder / "pile", seconds=0.001)


def go_on(this: Round, runner: str) -> None:
    options = Options(runner=runner)  # type: ignore[arg-type]
    run(load_job(str(this.job)), options, Console(file=io.StringIO()))


def ends_as(disturbed: Round, calm: Round, committed: set[str]) -> None:
    assert disturbed.tables() == calm.tables()
    generated = disturbed.generated()
    assert {page for page in committed if generated[page] != 1} == set()


@pytest.mark.parametrize("point", ["before-commit:2", "before-publish:1", "during-sweep:1"])
def test_a_run_killed_at_a_point_of_its_protocol_is_gone_on_with(
    calm: Round, disturbed: Round, point: str
) -> None:
    assert disturbed.start("local", point).wait(60) == -9
    committed = disturbed.committed()
    assert committed
    go_on(disturbed, "local")
    ends_as(disturbed, calm, committed)


def test_workers_that_are_killed_under_ray_change_nothing(
    calm: Round, disturbed: Round, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    over = threading.Event()

    def kill_now_and_then(targets: list[str]) -> None:
        while targets and not over.wait(0.1):
            tree = psutil.Process().children(recursive=True)
            for victim in victims_of(targets[0], tree, random.Random(0)):
                if disturbed.committed() or targets[0] == "model":
                    victim.kill()
                    ended.append(targets.pop(0))
                    break

    killer = threading.Thread(target=kill_now_and_then, args=(["model", "worker"],))
    killer.start()
    try:
        go_on(disturbed, "ray")
    finally:
        over.set()
        killer.join()
    assert ended[0] == "model"
    ends_as(disturbed, calm, set())
