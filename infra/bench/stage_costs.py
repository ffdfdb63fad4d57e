"""What a page costs in each stage but the model's: CPU time and bytes, for `scale_sim.py`.

    python infra/bench/stage_costs.py > infra/bench/stage_costs.json

The steps of a run do their work in this process, one shard after another, over made A4 pages drawn
for the longest edge of Idefics2 with and without image splitting, and over tiny images such as
`infra/proofs/scaling.py` uses. CPU time is this process's and its renderer's; start-up is not in
it. Answers are the `fake` model's. Linux only; about a minute.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "proofs"))
from documents import make_documents
from piles import make_pile

from pipeline.job import Job
from pipeline.lake.layout import COMMITS, PAGES
from pipeline.lake.plans import plans_table
from pipeline.lake.stores import Stores
from pipeline.models.base import Placement
from pipeline.runners.answerer import Answerer
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.steps import Committer, Drawer, Planner
from pipeline.runners.transport import answers_of, answers_table, samples_of, samples_table
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import shards

_TICKS = os.sysconf("SC_CLK_TCK")
_WARM_UP = 2
"""Shards that are not counted: the renderer starts, and code is run for the first time."""

PROFILES = {
    "tiny images": ("pile", "fake?edge=224"),
    "A4 at 980": ("a4", "fake?edge=980"),
    "A4 with splitting": ("a4", "fake?edge=980"),
}


@dataclass
class Clock:
    """CPU milliseconds by stage."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def over(self, stage: str) -> Iterator[None]:
        """Count what is spent inside, by this process and its children, towards a stage."""
        before = _cpu_s()
        yield
        self.spent[stage] = self.spent.get(stage, 0.0) + 1000 * (_cpu_s() - before)


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of its living children."""
    return time.process_time() + sum(
        _child_s(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()
    )


def _child_s(process: Path) -> float:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    mine = int(fields[1]) == os.getpid()
    return (int(fields[11]) + int(fields[12])) / _TICKS if mine else 0.0


def costs(name: str, inputs: Path, model: str, folder: Path) -> dict[str, float]:
    """Return milliseconds and bytes a page, and a commit, of one kind of documents."""
    job = Job.model_validate(
        {
            "input": {"paths": [str(inputs)]},
            "task": "ocr",
            "model": {
                "family": "fake",
                "name": model,
                "image_splitting": name != "A4 at 980",
            },
            "output": {"uri": str(folder)},
        }
    )
    recipe = prepare(job, "20260101T000000Z-000000")
    recipe.layout.prepare()
    documents = list(Discovery(job.input, Stores.of(job.stores)))
    clock = Clock()
    planner = Planner(recipe)
    list(planner.plan(documents[:2]))
    with clock.over("plan"):
        plans = list(planner.plan(documents))
    planner.close()
    found = {"plan_ms_document": clock.spent["plan"] / len(plans)}
    found["plan_bytes_document"] = plans_table(plans).nbytes / len(plans)
    return found | _pages(recipe, plans)


def _pages(recipe: Recipe, plans: list[Any]) -> dict[str, float]:
    drawer, committer = Drawer(recipe), Committer(recipe)
    answerer = Answerer(recipe.question, Placement("cpu", 1))
    todo = [(plan, plan.page_numbers) for plan in plans]
    work = list(shards(iter(todo), None))
    packed_bytes = answer_bytes = pages = commits = 0
    clock = Clock()
    for number, shard in enumerate([*work[:_WARM_UP], *work]):
        if number == _WARM_UP:
            clock = Clock()
            packed_bytes = answer_bytes = pages = commits = 0
        with clock.over("draw"):
            samples = list(drawer.draw(shard))
        with clock.over("pack"):
            table = samples_table(samples)
        with clock.over("unpack"):
            unpacked = samples_of(table)
            for one in unpacked:
                list(one.tiles)  # type: ignore[union-attr]
        answers = answerer.answer(samples)
        with clock.over("answers"):
            told = answers_table(answers)
            heard = answers_of(told)
        with clock.over("commit"):
            committer.commit(heard)
        packed_bytes, answer_bytes = packed_bytes + table.nbytes, answer_bytes + told.nbytes
        pages, commits = pages + shard.n_pages, commits + 1
    drawer.close()
    answerer.close()
    each = {f"{stage}_ms": spent / pages for stage, spent in clock.spent.items()}
    return each | {
        "sample_bytes": packed_bytes / pages,
        "answer_bytes": answer_bytes / pages,
        "pages_a_shard": pages / commits,
        "commit_bytes_a_shard": _mean_size(recipe, COMMITS),
        "file_bytes_a_shard": _mean_size(recipe, PAGES),
        "pages": pages,
    }


def _mean_size(recipe: Recipe, folder: str) -> float:
    """Return the mean size of the files that commits left in a folder of the output."""
    files = list((Path(recipe.job.output.uri) / folder).iterdir())
    return sum(file.stat().st_size for file in files) / len(files)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as name:
        folder = Path(name)
        (folder / "a4").mkdir()
        make_documents(folder / "a4")
        make_pile(folder / "pile", 512, 0, {"image": 1.0})
        found = {
            profile: costs(profile, folder / inputs, model, folder / f"out-{number}")
            for number, (profile, (inputs, model)) in enumerate(PROFILES.items())
        }
    rounded = {
        profile: {key: round(value, 3) for key, value in each.items()}
        for profile, each in found.items()
    }
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()
