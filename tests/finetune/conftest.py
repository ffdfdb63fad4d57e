"""Eight small documents with their answers, and checkpoints too small to read but not to learn."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.lessons import Teacher
from pipeline.models.base import Placement
from pipeline.models.families import family_of, resolve
from pipeline.schema import load_schema


def _fixtures_of(folder: str) -> Any:
    """What tests of models make their checkpoints with."""
    path = Path(__file__).parents[1] / "models" / folder / "conftest.py"
    found = importlib.util.spec_from_file_location(f"checkpoints_{folder}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


make_checkpoint, one_thread = _fixtures_of(".").make_checkpoint, _fixtures_of(".").one_thread
make_idefics = _fixtures_of("idefics").make_idefics


@pytest.fixture
def make_idefics3(tmp_path: Path) -> Callable[[], Path]:
    """`make_idefics3()` -> a new folder."""
    return lambda: Path(_fixtures_of("idefics3").save("idefics3", tmp_path / "idefics3"))


SCHEMA = {
    "$id": "slip.v1",
    "type": "object",
    "additionalProperties": False,
    "required": ["shop", "total", "note"],
    "properties": {
        "shop": {"type": "string"},
        "total": {"type": "number"},
        "note": {"type": ["string", "null"]},
    },
}
SHOPS = ["Tea", "Corner", "Shop", "Read", "Page", "Total", "EUR", "Answer"]


@pytest.fixture(scope="session")
def slips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight images that look alike to nobody, slip.json and rows.jsonl."""
    folder = tmp_path_factory.mktemp("slips")
    (folder / "slip.json").write_text(json.dumps(SCHEMA))
    lines = []
    for number, shop in enumerate(SHOPS):
        pixels = np.random.default_rng(number).integers(0, 256, (42, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        # Not in the schema's order.
        answer = {"note": None, "total": number + 0.5, "shop": shop}
        lines.append(json.dumps({"uri": f"{number}.png", "answer": answer}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def whole_pages(make_checkpoint: Any) -> Path:
    """A checkpoint that reads pages whole. Not to be changed."""
    folder: Path = make_checkpoint(splitting=False)
    return folder


@pytest.fixture
def make_job(slips: Path, whole_pages: Path, tmp_path: Path) -> Callable[..., FinetuneJob]:
    """Build a job that learns the slips, with other settings laid over it."""

    def make(**settings: Any) -> FinetuneJob:
        chosen: dict[str, Any] = {
            "model": {"name": str(whole_pages)},
            "data": {"train": str(slips / "rows.jsonl"), "eval_share": 0},
            "output": str(tmp_path / "out"),
            "batch": 4,
            "max_new_tokens": 64,
            **settings,
        }
        if chosen.get("task") is None:
            chosen.setdefault("schema", str(slips / "slip.json"))
        return FinetuneJob.model_validate(chosen)

    return make


@pytest.fixture
def make_teacher() -> Callable[[FinetuneJob], tuple[Teacher, Any]]:
    """Return the teacher of a job, and the model that it teaches."""

    def make(job: FinetuneJob) -> tuple[Teacher, Any]:
        checkpoint = resolve(job.model)
        family, schema = family_of(checkpoint), load_schema(job.as_run().schema_ref)
        model: Any = family.load(checkpoint, job.model, Placement(learns=True))
        return Teacher(job, schema, family, checkpoint, model), model

    return make
