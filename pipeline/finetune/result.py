"""What a training leaves: weights that `model.name` accepts, or an adapter for `model.adapter`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from pipeline.finetune.curve import shown
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.learner import Learner
from pipeline.lake.folders import replacing
from pipeline.models.base import Checkpoint
from pipeline.models.dtypes import effective_dtype
from pipeline.models.families import TRAITS_FILE
from pipeline.schema import Schema

MODEL, ADAPTER = "model", "adapter"


def save(
    job: FinetuneJob,
    schema: Schema,
    checkpoint: Checkpoint,
    learner: Learner,
    samples: int,
    measured: Mapping[str, float],
) -> Path:
    """Write what was learned below the job's output, and return its folder.

    Weights are written in the type that a run here would read them in. The learner is of no more
    use then.
    """
    logging.disable_progress_bar()
    whole = job.method == "full" or job.merge
    folder = Path(job.output) / (MODEL if whole else ADAPTER)
    with replacing(folder) as fresh:
        if whole:
            _save_whole(fresh, job, schema, checkpoint, learner)
        else:
            learner.model.save_pretrained(fresh)
        card = _card(job, schema, checkpoint, samples, measured, whole=whole)
        (fresh / "README.md").write_text(card, encoding="utf-8")
        for file in fresh.iterdir():
            file.chmod(0o644)  # weights are written for their owner's eyes only
    return folder


def _save_whole(
    folder: Path, job: FinetuneJob, schema: Schema, checkpoint: Checkpoint, learner: Learner
) -> None:
    weights: Any = learner.model
    if job.merge:
        weights = weights.merge_and_unload()
    on_gpu = job.resources.gpus_per_worker > 0
    weights.to(getattr(torch, effective_dtype(job.model.dtype, on_gpu)))
    weights.save_pretrained(folder)
    learner.whole.processor.save_pretrained(folder)
    traits: dict[str, Any] = {}
    if checkpoint.canvas is not None:
        traits["canvas"] = checkpoint.canvas
    if checkpoint.schemas is not None:
        traits["schemas"] = [schema.id]  # it may well have forgotten what it could answer before
    if checkpoint.compact_json:
        traits["compact_json"] = True
    if traits:
        text = json.dumps(traits, indent=2, sort_keys=True)
        (folder / TRAITS_FILE).write_text(text + "\n", encoding="utf-8")


def _card(
    job: FinetuneJob,
    schema: Schema,
    checkpoint: Checkpoint,
    samples: int,
    measured: Mapping[str, float],
    *,
    whole: bool,
) -> str:
    how = f"LoRA of rank {job.lora.rank}" if job.method == "lora" else "all that is not frozen"
    if job.model.quantization != "none":
        how += f", on weights in {job.model.quantization}"
    use = "name: THIS_FOLDER" if whole else f"name: {checkpoint.name}, adapter: THIS_FOLDER"
    return "\n".join(
        [
            f"# {job.name}",
            "",
            f"- base: {checkpoint.name}, revision {checkpoint.revision}",
            f"- answers: schema {schema.id}, task {job.task}",
            f"- trained: {how}; {samples:,} samples; learning rate {job.learning_rate:g}",
            f"- measured: {shown(measured) or 'nothing was kept to measure with'}",
            "",
            "Made by `pagelake finetune`; to use it in a job:",
            "",
            f"    schema: {job.schema_ if schema.id != job.schema_ else schema.id}",
            f"    model: {{{use}}}",
            "",
        ]
    )
