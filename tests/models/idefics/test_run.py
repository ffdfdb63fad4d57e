"""One job file, another model: whole runs that differ in nothing but who answers."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from rich.console import Console

from pipeline.engine.grammar import Grammar
from pipeline.jobfile import load_job
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.prompting import conversation, parsed
from pipeline.records import FinishReason
from pipeline.runners.run import Options, run
from pipeline.schema import Validator

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"type": ["string", "null"], "enum": ["receipt", "invoice", None]},
        "date": {"type": ["string", "null"], "format": "date"},
        "paid": {"type": ["boolean", "null"]},
    },
    "required": ["kind", "date", "paid"],
    "additionalProperties": False,
}


def test_the_same_job_gives_the_same_tables_whoever_answers(
    tmp_path: Path,
    demo: Path,
    idefics_folder: Path,
    rows: Callable[[Path, str], list[dict[str, Any]]],
) -> None:
    for name in ("multipage-02.pdf", "image-01.png"):
        shutil.copy(demo / "documents" / name, tmp_path)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "job.yaml").write_text(
        "input: {paths: ['*.pdf', '*.png']}\n"
        "schema: ./schema.json\n"
        "prompt: 'Fill in the record.'\n"
        "model: {name: nano}\n"
        "generation: {max_new_tokens: 96}\n"
        f"output: {{uri: {tmp_path}/nano}}\n"
    )
    job_file = str(tmp_path / "job.yaml")
    overrides = [f"model.name={idefics_folder}", f"output.uri={tmp_path}/idefics"]
    for job in (load_job(job_file), load_job(job_file, overrides)):
        assert run(job, Options(runner="local"), Console(file=io.StringIO())).all_ok
    for table in ("documents", "pages"):
        found = [ds.dataset(tmp_path / model / table) for model in ("nano", "idefics")]
        assert found[0].schema == found[1].schema
        ours, theirs = (rows(tmp_path / model, table) for model in ("nano", "idefics"))
        key = ["uri", *(["page_numbers"] if table == "pages" else []), "n_pages", "state"]
        assert [[r[k] for k in key] for r in ours] == [[r[k] for k in key] for r in theirs]
        assert {r["model_id"] for r in theirs} == {str(idefics_folder)}
        assert len(theirs) == (2 if table == "documents" else 4)


def test_one_answer_to_several_images_fits_the_schema(idefics_folder: Path) -> None:
    asked = ModelSettings(name=str(idefics_folder))
    checkpoint = resolve(asked)
    family = family_of(checkpoint)
    model = family.load(checkpoint, asked, Placement())
    encoder = family.encoder(checkpoint, asked)
    pages = np.random.default_rng(0).integers(0, 256, (3, 60, 42, 3), np.uint8)
    shown = conversation(parsed("First: {page} then: {page} Fill in the record."), len(pages))
    item = ModelInput(
        family.prompt(checkpoint, asked, shown, ""),
        tuple(encoder.encode(page) for page in pages),
        Grammar(SCHEMA, model.vocabulary).start(),
    )
    (answer,) = model.generate([item], 96)
    assert Validator(SCHEMA).violation(json.loads(answer.text)) is None
    assert answer.finish_reason is FinishReason.STOP
