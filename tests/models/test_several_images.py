"""Samples of one, two and three images in one batch of a whole job."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdf_builder import build_pages
from rich.console import Console

from pipeline.job import Job
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of
from pipeline.records import Sample
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.run import Options, run
from pipeline.runners.steps import Drawer, Planner
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import shards

LIMIT = 30


def write_pdf(path: Path, *pages: int) -> None:
    """Pages of a square that lies where the number says."""
    square = b"%d %d 90 60 re f"
    path.write_bytes(
        build_pages(*((b"/MediaBox [0 0 200 260]", square % (9 * n, 17 * n)) for n in pages))
    )


def answered_alone(recipe: Recipe) -> dict[tuple[str, tuple[int, ...]], str]:
    """What `generate` of the stock model says to each sample, one by one."""
    job, checkpoint = recipe.job, recipe.checkpoint
    planner, drawer = Planner(recipe), Drawer(recipe)
    plans = list(planner.plan(Discovery(job.input)))
    work = [(plan, plan.page_numbers) for plan in plans]
    samples = [one for shard in shards(work, job.pages_per_sample) for one in drawer.draw(shard)]
    planner.close()
    drawer.close()
    model = family_of(checkpoint).load(checkpoint, job.model, Placement(threads=1))
    found = {}
    for sample in samples:
        assert isinstance(sample, Sample)
        prompt = recipe.prompts[len(sample.id.page_numbers) - 1]
        (output,) = model.generate([ModelInput(prompt, sample.tiles)], LIMIT)
        found[sample.id.uri, sample.id.page_numbers] = output.text.strip()
    return found


def test_samples_of_several_images_are_answered_together_as_each_alone(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    rows: Callable[[Path | str, str], list[dict[str, Any]]],
) -> None:
    def edit(model: Any, tokenizer: Any) -> None:
        model.lm_head.weight.data[tokenizer.eos_token_id] = 0  # answers go on and on

    for name, pages in (("a", (1,)), ("b", (2, 3)), ("c", (4, 5, 6)), ("d", (7, 8, 9, 1))):
        write_pdf(tmp_path / f"{name}.pdf", *pages)
    job = Job.model_validate(
        {
            "input": {"paths": [str(tmp_path / "*.pdf")]},
            "task": "ocr",
            "unit": "document",
            "pages_per_sample": 3,
            "model": {"name": str(make_checkpoint(seed=3, edit=edit))},
            "generation": {"max_new_tokens": LIMIT},
            "resources": {"cpus_per_actor": 1},
            "output": {"uri": str(tmp_path / "out")},
        }
    )
    run(job, Options(runner="local"), Console(file=io.StringIO()))
    found = {
        (row["uri"], tuple(row["page_numbers"])): row["raw_text"].strip()
        for row in rows(tmp_path / "out", "pages")
    }
    assert sorted(map(len, (pages for _, pages in found))) == [1, 1, 2, 3, 3]
    assert len(set(found.values())) > 2
    assert found == answered_alone(prepare(job, "run"))
