"""Adaptive splitting and other edges, from the job to the tables, on true weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.errors import CheckpointError
from pipeline.job import Job
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger
from pipeline.models.families import family_of, resolve
from pipeline.runners.run import Options, run

SCHEMA = {
    "type": "object",
    "properties": {"word": {"enum": ["tea", "milk", "bread", "salt", "oil"]}},
    "required": ["word"],
    "additionalProperties": False,
}


@pytest.fixture
def read(tmp_path: Path, demo: Path, checkpoint_folder: Path, rows: Any) -> Callable[..., Any]:
    """`read(**model settings)` -> (rows of pages, counts of looks)."""
    schema = tmp_path / "word.json"
    schema.write_text(json.dumps(SCHEMA))

    def go(**settings: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        job = Job.model_validate(
            {
                "input": {"paths": [str(demo / "documents" / "*.png")]},
                "schema": str(schema),
                "model": {"name": str(checkpoint_folder), **settings},
                "output": {"uri": str(out)},
            }
        )
        run(job, Options("local", limit=6), Console(file=io.StringIO()))
        manifest = Ledger(Layout.open(str(out))).manifest()
        assert manifest is not None
        found = sorted(rows(out, "pages"), key=lambda row: row["uri"])
        return found, dict(manifest.counts.looks)

    return go


def test_what_is_in_doubt_is_read_as_with_splitting(read: Callable[..., Any]) -> None:
    split, counts = read(image_splitting=True)
    assert counts == {"1": 6}
    doubted, counts = read(image_splitting="adaptive", split_below=1.0)
    assert counts == {"2": 6}
    assert [row["raw_text"] for row in doubted] == [row["raw_text"] for row in split]
    assert [row["prompt_tokens"] for row in doubted] == [row["prompt_tokens"] for row in split]


def test_only_what_is_in_doubt_is_looked_at_twice(read: Callable[..., Any]) -> None:
    whole, counts = read(image_splitting="adaptive", split_below=0.0)
    assert counts == {"1": 6}
    mixed, counts = read(image_splitting="adaptive", split_below=0.335)
    split, _ = read(image_splitting=True)
    assert set(counts) == {"1", "2"}
    for row, first, second in zip(mixed, whole, split, strict=True):
        assert row["record"] == (first if row["looks"] == 1 else second)["record"]


def test_a_longest_edge_sets_the_size_of_tiles_and_of_drawn_pages(
    checkpoint_folder: Path, read: Callable[..., Any]
) -> None:
    job_model = {"name": str(checkpoint_folder), "longest_edge": 56, "shortest_edge": 28}
    settings = Job.model_validate(
        {
            "input": {"paths": ["x"]},
            "task": "ocr",
            "model": job_model,
            "output": {"uri": "y"},
        }
    ).model
    encoder = family_of(resolve(settings)).encoder(resolve(settings), settings)
    plan = encoder.plan_page(595, 842, True)
    assert (plan.width, plan.height) == (79, 112)  # quadrants of at most 56
    small, _ = read(longest_edge=56, shortest_edge=28)
    large, _ = read()
    assert [row["raw_text"] for row in small] != [row["raw_text"] for row in large]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"longest_edge": 4000}, "model.longest_edge: 4000 is not from 14 to 112"),
        ({"shortest_edge": 113}, "model.shortest_edge: 113 is not from 14 to the longest edge"),
        ({"name": "nano", "longest_edge": 112}, "model.longest_edge: 'nano' reads pages of one"),
        ({"name": "nano", "image_splitting": "adaptive"}, "model.image_splitting: 'nano' reads"),
    ],
)
def test_edges_and_splitting_that_do_not_fit_are_refused(
    read: Callable[..., Any], settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        read(**settings)
