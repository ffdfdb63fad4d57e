"""The fine-tuning job, and its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.errors import JobError
from pipeline.finetune.job import FinetuneJob, load_finetune_job
from pipeline.jobfile import load_job

REFERENCE = (Path(__file__).parents[2] / "docs" / "FINETUNE.md").read_text("utf-8")
JOB = "schema: receipt.v1\ndata: {train: rows.jsonl}\noutput: out\n"


def keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        path, nested = f"{prefix}{field.alias or name}", field.annotation
        own = isinstance(nested, type) and nested.__module__ == FinetuneJob.__module__
        found += keys(nested, f"{path}.") if own else [path]  # type: ignore[arg-type]
    return found


def test_the_reference_names_every_key_and_its_example_is_a_job(tmp_path: Path) -> None:
    assert [key for key in keys(FinetuneJob) if f"| `{key}` |" not in REFERENCE] == []
    example = REFERENCE.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "job.yaml").write_text(example)
    assert load_finetune_job(str(tmp_path / "job.yaml")).name == "job"


def test_paths_are_relative_to_the_file_and_the_output_to_where_one_is(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("receipt.v1", "./own.json"))
    job = load_finetune_job(str(tmp_path / "job.yaml"), ["data.eval=kept.jsonl"])
    assert job.schema_ == str(tmp_path / "own.json")
    assert job.data.train == str(tmp_path / "rows.jsonl")
    assert job.data.eval == str(Path.cwd() / "kept.jsonl")
    assert job.output == str(Path.cwd() / "out")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("task=ocr", "task ocr has its own schema"),
        ("question=why", "task extract asks none"),
        ("model.adapter=./a", "model.adapter: training starts from whole weights"),
        ("model.dtype=float16", "float16 loses small gradients"),
        ("method=full", None),
        ("lora.ranks=3", "lora.ranks: unknown key; did you mean rank"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(
    tmp_path: Path, change: str, complaint: Any
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    if complaint is None:
        for more, why in (("merge=true", "merge: full"), ("model.quantization=nf4", "method: qu")):
            with pytest.raises(JobError, match=why):
                load_finetune_job(str(tmp_path / "job.yaml"), [change, more])
        return
    with pytest.raises(JobError, match=complaint):
        load_finetune_job(str(tmp_path / "job.yaml"), [change])


def test_a_run_does_not_take_a_training_for_its_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    with pytest.raises(JobError, match="run it with pagelake finetune"):
        load_job(str(tmp_path / "job.yaml"))
