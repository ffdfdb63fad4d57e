"""Runs that are killed with `kill -9` and run again end with the tables of an undisturbed run.

    python infra/proofs/kill.py --documents 400 --moments 20

Each round runs a job over the same pile into a new output, kills something of it, and runs the same
command again if that ended the run. What is killed: the driver, a Ray worker, the actor, the
model's process, or all of the session, at random moments; and whoever comes to a point of the
commit protocol (`killpoints/`). Then the tables must be equal, row for row, run ids, attempts and
timings aside, and no page that was committed when the kill came may have been generated again.
Linux only; exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from piles import make_pile

from pipeline.stages.plan import PAGES_PER_SHARD

TARGETS = ("driver", "worker", "actor", "model", "session")
POINTS = (
    "before-data",
    "before-commit",
    "after-commit",
    "before-documents",
    "before-publish",
    "after-publish",
    "during-sweep",
)
_OF_A_RUN = {"run_id", "processed_at", "attempts", "prompt_tokens"}
_ENDS = {0, 3}
_PATIENCE_S = 600
_JOB = """\
input: {{paths: [{pile}]}}
task: ocr
model: {{family: fake, name: "fake?edge=56&seconds={seconds}&tally={tally}"}}
resources: {{batch: 16}}
render: {{cpu_s: 2}}
output: {{uri: {output}}}
"""


@dataclass(frozen=True)
class Kill:
    """What is killed, and when: once a share of the work is committed, or at a point's n-th time.

    A share below 0 is a share of the time before the first commit, counted backwards.
    """

    target: str
    at: float | str
    runner: str = "ray"

    def __str__(self) -> str:
        when = f"{self.at:+.0%}" if isinstance(self.at, float) else self.at
        return f"{self.runner:5}  {self.target:7}  {when}"


class Round:
    """One output, and the runs that fill it."""

    def __init__(self, folder: Path, pile: Path, seconds: float) -> None:
        folder.mkdir()
        self.output, self.tally, self.marks = folder / "out", folder / "tally", folder / "marks"
        self.marks.mkdir()
        self.tally.touch()
        self._log = folder / "log"
        self.job = folder / "job.yaml"
        # The tally is part of the model's name and so of every row: it is the same for all rounds.
        link = folder.parent / "tally"
        link.unlink(missing_ok=True)
        link.symlink_to(self.tally)
        self.job.write_text(_JOB.format(pile=pile, tally=link, output=self.output, seconds=seconds))

    def start(self, runner: str, kill_at: str | None = None) -> psutil.Popen:
        """Start `pagelake run`."""
        environment = dict(os.environ)
        if kill_at is not None:
            environment |= {
                "PAGELAKE_KILL_AT": kill_at,
                "PAGELAKE_KILL_MARK": str(self.marks),
                "PYTHONPATH": os.pathsep.join(
                    [str(Path(__file__).parent / "killpoints"), *sys.path]
                ),
            }
        command = [sys.executable, "-m", "pipeline.cli", "run", str(self.job), "--json"]
        with self._log.open("ab") as log:
            return psutil.Popen(
                [*command, "--runner", runner], env=environment, stdout=log, stderr=log
            )

    def finish(self, runner: str) -> None:
        """Run until it ends by itself; it must say that it finished."""
        status = self.start(runner).wait(_PATIENCE_S)
        if status not in _ENDS:
            raise SystemExit(f"exit status {status}:\n{self._log.read_text()[-3000:]}")

    def generated(self) -> Counter[str]:
        """Count how often each page was answered."""
        return Counter(self.tally.read_text().split())

    def wait_for(self, share: float, run: psutil.Popen, calm: Calm, chance: random.Random) -> None:
        """Wait until so much is done as `Kill.at` says, or the run has ended."""
        commits = self.output / "_pagelake" / "commits"
        until = time.monotonic() + (calm.start_s * (1 + share) if share < 0 else math.inf)
        enough = max(1.0, share * calm.shards)
        while run.is_running() and run.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until or len(list(commits.glob("*.json"))) >= enough:
                return
            time.sleep(chance.uniform(0.01, 0.1))  # not always right after a commit

    def committed(self) -> set[str]:
        """Return the pages that are committed now, as the tally names them."""
        pages: set[str] = set()
        manifest = self.output / "_pagelake" / "manifest.json"
        names = json.loads(manifest.read_text())["pages"] if manifest.exists() else []
        for commit in (self.output / "_pagelake" / "commits").glob("*.json"):
            names.append(json.loads(commit.read_text())["file"])
        for name in names:
            if (self.output / name).exists():
                texts = pq.read_table(self.output / name, columns=["raw_text"])["raw_text"]
                pages.update(text for text in texts.to_pylist() if text is not None)
        return pages

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return both tables as a plain glob reads them, without what a run alone decides."""
        found = {}
        for table in ("documents", "pages"):
            files = sorted(str(file) for file in (self.output / table).glob("*.parquet"))
            rows = ds.dataset(files).to_table().to_pylist()
            kept = [
                {k: v for k, v in row.items() if k not in _OF_A_RUN and not k.endswith("_s")}
                for row in rows
            ]
            found[table] = sorted(
                kept, key=lambda row: (row["uri"], str(row.get("page_numbers")), str(row))
            )
        return found


@dataclass(frozen=True)
class Calm:
    """An undisturbed run: when it began to commit, and how many commits it made."""

    start_s: float
    shards: int


def undisturbed(this: Round) -> Calm:
    """Run to the end, and watch the first commit come."""
    started = time.monotonic()
    run = this.start("ray")
    commits = this.output / "_pagelake" / "commits"
    while not list(commits.glob("*.json")):
        time.sleep(0.02)
    start_s = time.monotonic() - started
    if run.wait(_PATIENCE_S) not in _ENDS:
        raise SystemExit("the undisturbed run failed")
    return Calm(start_s, max(1, -(-this.generated().total() // PAGES_PER_SHARD)))


def play(this: Round, kill: Kill, calm: Calm, chance: random.Random) -> set[str]:
    """Run, kill, and run again where that is needed; return what was committed at the kill."""
    if isinstance(kill.at, str):
        run = this.start(kill.runner, kill.at)
        status = run.wait(_PATIENCE_S)
        committed = this.committed()
        _wait_for_silence([])
    else:
        run = this.start(kill.runner)
        this.wait_for(kill.at, run, calm, chance)
        tree = run.children(recursive=True) if run.is_running() else []
        if kill.target in ("driver", "session"):
            victims = [*tree, run] if kill.target == "session" else [run]
        else:
            victims = victims_of(kill.target, tree, chance)
        committed = this.committed()
        for victim in victims:
            _end(victim)
        status = run.wait(_PATIENCE_S)
        _wait_for_silence([*tree, run])
    if status not in _ENDS:
        this.finish(kill.runner)
    return committed


def victims_of(
    target: str, tree: list[psutil.Process], chance: random.Random
) -> list[psutil.Process]:
    """Choose a process below the driver that is such a target, if there is one."""
    titles = {process: _title(process) for process in tree}
    wanted = {
        "worker": lambda title: title.startswith("ray::") and "Worker" not in title,
        "actor": lambda title: title.startswith("ray::") and "MapWorker" in title,
        "model": lambda title: "pipeline.runners.model_process" in title,
    }[target]
    found = [process for process, title in titles.items() if wanted(title)]
    return [chance.choice(found)] if found else []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _end(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()


def _wait_for_silence(tree: list[psutil.Process]) -> None:
    """Wait for what a dead driver leaves to end by itself; it may not write any more then.

    Two agents of Ray's, which know nothing of the run, take minutes to notice.
    """
    _, alive = psutil.wait_procs([p for p in tree if "Agent" not in _title(p)], timeout=60)
    if alive:
        raise SystemExit(f"still running a minute after the kill: {[_title(p) for p in alive]}")


def schedule(moments: int, points: bool, chance: random.Random) -> Iterator[Kill]:
    """Return what to kill and when: the targets in turn at random moments, then every point."""
    for number in range(moments):
        yield Kill(TARGETS[number % len(TARGETS)], chance.uniform(-0.2, 0.95))
    for point in POINTS if points else ():
        many = point in ("before-data", "before-commit", "after-commit")
        for runner in ("local", "ray"):
            yield Kill("point", f"{point}:{chance.randint(1, 8) if many else 1}", runner)


def prove(options: argparse.Namespace, folder: Path) -> int:
    chance = random.Random(options.seed)
    pile = folder / "pile"
    make_pile(pile, options.documents, options.seed)
    first = Round(folder / "calm", pile, options.seconds)
    calm = undisturbed(first)
    truth, pages = first.tables(), first.generated()
    print(f"undisturbed: {len(truth['documents'])} documents, {len(truth['pages'])} pages, "
          f"{pages.total()} generated, {calm}", flush=True)  # fmt: skip
    bad = 0
    for number, kill in enumerate(schedule(options.moments, options.points, chance)):
        this = Round(folder / f"round-{number}", pile, options.seconds)
        committed = play(this, kill, calm, chance)
        generated = this.generated()
        again = sorted(page for page in committed if generated[page] != 1)
        same = this.tables() == truth
        bad += bool(again) or not same
        twice = generated.total() - pages.total()
        words = [str(kill), f"{len(committed):4} pages committed", f"{twice:3} generated twice"]
        words += ["equal" if same else "TABLES DIFFER"]
        words += [f"{len(again)} COMMITTED PAGES AGAIN"] if again else []
        print("  ".join(words), flush=True)
        if same and not again:
            shutil.rmtree(folder / f"round-{number}")
    print("all equal" if not bad else f"{bad} rounds differ; see {folder}")
    return bad


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--documents", type=int, default=400)
    options.add_argument("--moments", type=int, default=20, help="that are random")
    options.add_argument("--points", action=argparse.BooleanOptionalAction, default=True)
    options.add_argument("--seconds", type=float, default=0.01, help="that a page takes the model")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path, help="folder for the rounds; kept")
    given = options.parse_args()
    if given.keep is not None:
        given.keep.mkdir(parents=True)
        sys.exit(bool(prove(given, given.keep)))
    with tempfile.TemporaryDirectory(prefix="pagelake-kill-") as folder:
        sys.exit(bool(prove(given, Path(folder))))


if __name__ == "__main__":
    main()
