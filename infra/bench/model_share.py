"""How much of all CPU time of a run is the model's?

    python infra/bench/model_share.py [--pages 2000] [--seed 1] [--set resources.batch=64]

`pagelake run` with Ray and the bundled `nano` reads made receipts, PDFs and images, into Parquet.
The CPU seconds of every process of the run are read from /proc at intervals, and what is spent
between the commits of the first and of the last tenth of the pages counts: start-up and the closing
table do not. The model's are those of the process that holds it. A worker of Ray takes all tasks in
turn, so its seconds are put down to the task that its title names when they are read.

Drawing runs ahead of the model, and may be done before the last tenth or begin before the first.
So the share is also told with the whole run's drawing spread over all pages, and the lower of the
two is what must be 0.8 or more.

The wall share is the model's own clock: `model_s` of the pages committed in between, over the
seconds in between. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from process_tree import ProcessTree

from pipeline.lake.layout import COMMITS
from pipeline.synth.corpus import write_corpus
from pipeline.synth.words import Split

WANTED = 0.8
MODEL = "model process"
SHOWN = 8
DRAWING = ("draw tasks", "renderer children")
_MARKER = "PAGELAKE_BENCH_RUN"
_TICKS = os.sysconf("SC_CLK_TCK")
_KINDS = (
    ("renderer children", r"pipeline\.render\.child"),
    ("driver", r"pipeline\.cli"),
    ("raylet", r"^\S*/raylet/raylet"),
    ("gcs_server", r"gcs_server"),
    ("ray agents", r"ray/(_private|dashboard|autoscaler)/.*(agent|monitor|main)|^ray::\w+Agent"),
    (MODEL, r"pipeline\.runners\.model_process"),
    ("model's actor", r"^ray::\S*(MapWorker|AnswerActor)"),
    ("plan tasks", r"^ray::.*PlanTask"),
    ("draw tasks", r"^ray::.*DrawTask"),
    ("commit tasks", r"^ray::.*CommitTask"),
    ("Ray Data's actors", r"^ray::_?[A-Z]\w+(Actor|Tracker)\b"),
)


@dataclass
class Meter:
    """CPU seconds of a run so far, by kind of process."""

    tree: ProcessTree
    spent: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _last: dict[tuple[int, str], float] = field(default_factory=dict)
    _kinds: dict[tuple[int, str], str] = field(default_factory=dict)

    def read(self) -> None:
        """Add what each living process has spent since it was read last."""
        for pid in self.tree.pids():
            fields = _read(pid, "stat").rpartition(")")[2].split()
            if fields:
                process = pid, fields[19]
                seconds = (int(fields[11]) + int(fields[12])) / _TICKS
                self.spent[self._kind(process)] += seconds - self._last.get(process, 0.0)
                self._last[process] = seconds

    def pids(self, kind: str) -> list[int]:
        """Return the processes of a kind, those that have ended among them."""
        return [process[0] for process, found in self._kinds.items() if found == kind]

    def _kind(self, process: tuple[int, str]) -> str:
        """Return what a process does, or if its title does not tell, what it did before."""
        title = _read(process[0], "cmdline").replace("\0", " ").strip()
        known = self._kinds.get(process, "ray workers" if "ray::" in title else "other")
        kind = next((name for name, pattern in _KINDS if re.search(pattern, title)), known)
        self._kinds[process] = kind
        return kind


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


@dataclass
class Commits:
    """The rows of pages that a run has committed so far, by file.

    Remembered here, because a run that ends folds the files away.
    """

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)

    def read(self) -> None:
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            if path.name not in self.rows:
                try:
                    self.rows[path.name] = json.loads(path.read_text())["n_rows"]
                except OSError:  # folded away since
                    continue


@dataclass(frozen=True)
class Moment:
    """Where a run stood: CPU seconds by kind of process, and pages committed."""

    at: datetime
    spent: dict[str, float]
    pages: int


def run(folder: Path, sets: list[str], every_s: float) -> Iterator[Moment]:
    """Run the pipeline over `folder`/documents, and yield how it stands every so often."""
    job, mark = folder / "job.yaml", secrets.token_hex(8)
    job.write_text(
        f"input: {{paths: [documents]}}\nschema: receipt.v1\noutput: {{uri: {folder / 'out'}}}\n"
    )
    command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--json"]
    command += [argument for item in sets for argument in ("--set", item)]
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {_MARKER: mark}
        )
        meter = Meter(ProcessTree(process.pid, f"{_MARKER}={mark}"))
        commits = Commits(folder / "out" / COMMITS)
        while process.poll() is None:
            meter.read()
            commits.read()
            yield Moment(datetime.now(UTC), dict(meter.spent), sum(commits.rows.values()))
            time.sleep(every_s)
    if process.returncode not in (0, 3):
        tail = Path(log.name).read_text(errors="replace")[-2000:]
        raise SystemExit(f"the run exited {process.returncode}:\n{tail}")


def steady(moments: list[Moment], pages: int) -> tuple[Moment, Moment]:
    """Return the first moments with a tenth, and with nine tenths, of the pages committed."""
    first = next((one for one in moments if one.pages >= 0.1 * pages), None)
    last = next((one for one in moments if one.pages >= 0.9 * pages), None)
    if first is None or last is None or first.pages == last.pages:
        raise SystemExit("too few pages, or too long between samples, for a steady state")
    return first, last


def since(first: Moment, last: Moment) -> dict[str, float]:
    """Return the CPU seconds between two moments by kind of process, most first."""
    spent = {kind: total - first.spent.get(kind, 0.0) for kind, total in last.spent.items()}
    return dict(sorted(spent.items(), key=lambda one: -one[1]))


def model_seconds(output: Path, first: Moment, last: Moment) -> float:
    """Return the seconds in the model, by its own clock, of the pages written in between."""
    made = ds.field("processed_at")
    between = (made > pa.scalar(first.at)) & (made <= pa.scalar(last.at))
    table = ds.dataset(output / "pages").to_table(["model_s"], filter=between)
    return float(sum(table.column("model_s").to_pylist()))


def measure(folder: Path, pages: int, seed: int, sets: list[str], every_s: float) -> dict[str, Any]:
    write_corpus(folder, seed, pages, Split.TEST)
    moments = list(run(folder, sets, every_s))
    first, last = steady(moments, pages)
    spent = since(first, last)
    wall_s, counted = (last.at - first.at).total_seconds(), last.pages - first.pages
    model_s = model_seconds(folder / "out", first, last)
    cpu_s = sum(spent.values())
    drawn_s, all_drawn_s = (
        sum(part.get(kind, 0.0) for kind in DRAWING) for part in (spent, moments[-1].spent)
    )
    return {
        "pages": pages,
        "counted": counted,
        "wall_s": wall_s,
        "pages_per_s": counted / wall_s,
        "cpu_s": cpu_s,
        "model_cpu_s": spent[MODEL],
        "cpu_share": spent[MODEL] / cpu_s,
        "cpu_share_with_all_drawing": spent[MODEL]
        / (cpu_s - drawn_s + all_drawn_s * counted / pages),
        "all_drawing_s": all_drawn_s,
        "model_wall_s": model_s,
        "wall_share": model_s / wall_s,
        "kinds": spent,
        "before": first.spent,
        "after": since(last, moments[-1]),
        "run_s": (moments[-1].at - moments[0].at).total_seconds(),
    }


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['counted']} of {found['pages']} pages in {found['wall_s']:.1f} s "
        f"({found['pages_per_s']:.1f} pages/s); the whole run took {found['run_s']:.0f} s"
    )
    print(f"{'':28}{'CPU s':>10}{'ms a page':>12}{'share':>8}{'before':>10}{'after':>10}")
    rows = list(found["kinds"].items())[:SHOWN]
    rows.append(("all", found["cpu_s"]))
    totals = {part: {"all": sum(found[part].values())} for part in ("before", "after")}
    for kind, seconds in rows:
        around = ((found[part] | totals[part]).get(kind, 0.0) for part in ("before", "after"))
        print(
            f"{kind:28}{seconds:10.1f}{1000 * seconds / found['counted']:12.1f}"
            f"{seconds / found['cpu_s']:8.1%}" + "".join(f"{other:10.1f}" for other in around)
        )
    print(f"drawing, whole run: {1000 * found['all_drawing_s'] / found['pages']:.1f} ms a page")
    print(
        f"the model's share of the CPU seconds: {found['cpu_share']:.3f}, "
        f"with all drawing {found['cpu_share_with_all_drawing']:.3f}"
    )
    print(f"the model's share of the wall: {found['wall_share']:.3f}")


@contextmanager
def place(keep: Path | None) -> Iterator[Path]:
    """Give a folder to work in: one that goes away, or a new one at `keep`."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=0.25, help="seconds between samples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder")
    parser.add_argument("--json", action="store_true", help="one line of JSON, not a table")
    asked = parser.parse_args()
    with place(asked.keep) as folder:
        found = measure(folder, asked.pages, asked.seed, asked.sets, asked.every)
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)
    if min(found["cpu_share"], found["cpu_share_with_all_drawing"]) < WANTED:
        raise SystemExit(f"short of what is wanted: {WANTED} of the CPU seconds")


if __name__ == "__main__":
    main()
