"""A job made ready to run: what every task needs to know, small enough to travel to each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import __version__
from pipeline.engine.grammar import check_schema
from pipeline.errors import SchemaError
from pipeline.job import Job
from pipeline.lake.types import arrow_type
from pipeline.models.base import Checkpoint, PageEncoder
from pipeline.models.dtypes import effective_dtype
from pipeline.models.families import adapter_revision, family_of, resolve
from pipeline.records import Provenance
from pipeline.schema import Schema, bound_lists, default_prompt, load_schema, relax

_OCR_PROMPT = "Transcribe all text of this page, line by line, in reading order."


@dataclass(frozen=True)
class Question:
    """What the model's process needs to know."""

    job: Job
    schema: Schema
    checkpoint: Checkpoint
    prompt: str


@dataclass(frozen=True)
class Recipe(Question):
    """`identity` is what the fingerprint is made of, key by key: the settings that change answers.
    `finished_before` is the run whose tables the output held when this one began.

    The password is kept out of every printed form.
    """

    encoder: PageEncoder
    identity: dict[str, Any]
    provenance: Provenance
    warnings: tuple[str, ...] = ()
    salt: str | None = None
    finished_before: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def question(self) -> Question:
        """The model's part alone."""
        return Question(self.job, self.schema, self.checkpoint, self.prompt)


def _check_bounds(document: Mapping[str, Any], name: str, max_items: int | None) -> None:
    try:
        if max_items is not None:
            check_schema(bound_lists(document, max_items + 1), name)
    except SchemaError as error:
        raise SchemaError(
            f"schema {name}: no answer fits it with generation.max_items {max_items}; raise that, "
            "or leave it out"
        ) from error


def prepare(job: Job, run_id: str) -> Recipe:
    """Load what the job names, except the weights, and check that it fits together.

    Raises
    ------
    UserError
        If the schema or the checkpoint cannot be used.
    """
    schema = load_schema(job.schema_)
    checkpoint = resolve(job.model)
    if job.task == "extract" and job.generation.constrained:
        for document in (schema.document, relax(schema)):
            check_schema(document, schema.id)
            _check_bounds(document, schema.id, job.generation.max_items)
    family = family_of(checkpoint)
    encoder = family.encoder(checkpoint, job.model)
    prompt = family.prompt(checkpoint, _instructions(job, schema), 1, schema.id)
    arrow_type(schema.document)  # refuses what no table can hold, before any work
    identity = _identity(job, schema, checkpoint, encoder, prompt)
    return Recipe(
        job=job,
        schema=schema,
        checkpoint=checkpoint,
        encoder=encoder,
        prompt=prompt,
        identity=identity,
        provenance=Provenance(
            run_id=run_id,
            task=job.task,
            schema_id=schema.id,
            model_id=checkpoint.name,
            model_revision=checkpoint.revision,
            prompt_hash=identity["prompt"],
            pipeline_version=__version__,
            fingerprint=_hash(json.dumps(identity, sort_keys=True)),
        ),
        warnings=_warnings(schema, checkpoint),
        password=os.environ.get(job.input.password_env) if job.input.password_env else None,
    )


def salted(recipe: Recipe, salt: str | None) -> Recipe:
    """Return the recipe with a fingerprint of its own: rows made without the salt are not its."""
    if salt is None:
        return recipe
    fingerprint = _hash(json.dumps({**recipe.identity, "salt": salt}, sort_keys=True))
    provenance = replace(recipe.provenance, fingerprint=fingerprint)
    return replace(recipe, provenance=provenance, salt=salt)


def _instructions(job: Job, schema: Schema) -> str:
    if job.prompt is not None:
        return job.prompt
    return _OCR_PROMPT if job.task == "ocr" else default_prompt(schema)


def _identity(
    job: Job, schema: Schema, checkpoint: Checkpoint, encoder: PageEncoder, prompt: str
) -> dict[str, Any]:
    adapter = job.model.adapter
    return {
        "task": job.task,
        "schema": f"{schema.id}@{schema.sha256[:16]}",
        "prompt": _hash(prompt),
        "model": f"{checkpoint.name}@{checkpoint.revision}",
        "model.adapter": None if adapter is None else adapter_revision(adapter),
        "model.dtype": effective_dtype(job.model.dtype, job.resources.gpus_per_actor > 0),
        "pixels": repr(encoder),
        "render.renderer": job.render.renderer,
        "generation.max_new_tokens": job.generation.max_new_tokens,
        "generation.constrained": job.generation.constrained,
    }


def _warnings(schema: Schema, checkpoint: Checkpoint) -> tuple[str, ...]:
    if checkpoint.schemas is None or schema.id in checkpoint.schemas:
        return ()
    known = ", ".join(checkpoint.schemas)
    return (
        f"model '{checkpoint.name}' was trained to answer {known} only; "
        f"its answers to {schema.id} mean nothing",
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
