"""A job made ready to run: what every task needs to know, small enough to travel to each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import __version__
from pipeline.conversation import Slot
from pipeline.engine.grammar import check_schema
from pipeline.errors import SchemaError
from pipeline.job import Job
from pipeline.lake.layout import Layout
from pipeline.lake.stores import Stores
from pipeline.lake.types import arrow_type
from pipeline.models.adapters import pin_adapter
from pipeline.models.base import Checkpoint, PageEncoder
from pipeline.models.dtypes import effective_dtype
from pipeline.models.families import adapter_revision, family_of, resolve
from pipeline.models.weight_size import describe_weights
from pipeline.prompting import conversation, parsed, shows_images, template_of
from pipeline.records import Provenance
from pipeline.runners.few_shot import Examples, draw_examples
from pipeline.runners.stored_model import is_stored, on_this_machine, resolve_stored
from pipeline.schema import Schema, bound_lists, load_schema, relax


@dataclass(frozen=True)
class Question:
    """What the model's process needs to know; see `pipeline.stages.generate.Ask`."""

    job: Job
    schema: Schema
    checkpoint: Checkpoint
    prompts: tuple[str, ...]
    examples: Examples


@dataclass(frozen=True)
class Recipe(Question):
    """`identity` is what the fingerprint is made of, key by key: the settings that change answers.
    `shows_images` is False where samples show the pages' text layer alone. `weights` says in a line
    what the model's weights will take. `finished_before` is the run whose tables the output held
    when this one began.

    The password is kept out of every printed form.
    """

    encoder: PageEncoder
    shows_images: bool
    identity: dict[str, Any]
    provenance: Provenance
    warnings: tuple[str, ...] = ()
    weights: str | None = None
    salt: str | None = None
    finished_before: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def without_prompts(self) -> Recipe:
        """What tasks without the model need: prompts and examples may be many megabytes."""
        return replace(self, prompts=(), examples=Examples())

    @property
    def layout(self) -> Layout:
        """Where the run's output lies."""
        return Layout.open(self.job.output.uri, Stores.of(self.job.stores))

    @property
    def question(self) -> Question:
        """The model's part alone."""
        return Question(self.job, self.schema, self.checkpoint, self.prompts, self.examples)


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
    schema = load_schema(job.schema_ref)
    job = _with_pinned_adapter(job)
    pinned = resolve_stored(job) if is_stored(job.model.name) else resolve(job.model)
    checkpoint = on_this_machine(pinned, job, weights=False)
    if job.task != "ocr" and job.generation.constrained:
        for document in (schema.document, relax(schema)):
            check_schema(document, schema.id)
            _check_bounds(document, schema.id, job.generation.max_items)
    family = family_of(checkpoint)
    encoder = family.encoder(checkpoint, job.model)
    password = os.environ.get(job.input.password_env) if job.input.password_env else None
    template = template_of(job, schema)
    examples = draw_examples(job, schema, encoder, password, images=shows_images(template))
    prompts = tuple(
        family.prompt(
            checkpoint,
            job.model,
            conversation(template, n + 1, job.preamble, examples.shown),
            schema.id,
        )
        for n in range(job.pages_per_sample if job.unit == "document" else 1)
    )
    arrow_type(schema.document)  # refuses what no table can hold, before any work
    identity = _identity(job, schema, checkpoint, encoder, prompts, examples)
    return Recipe(
        job=job,
        schema=schema,
        checkpoint=pinned,
        encoder=encoder,
        prompts=prompts,
        examples=examples,
        shows_images=shows_images(template),
        identity=identity,
        provenance=Provenance(
            run_id=run_id,
            task=job.task,
            schema_id=schema.id,
            model_id=checkpoint.name,
            model_revision=_revision(checkpoint, identity["model.adapter"]),
            prompt_hash=identity["prompt"],
            pipeline_version=__version__,
            fingerprint=_hash(json.dumps(identity, sort_keys=True)),
        ),
        warnings=(*_warnings(schema, checkpoint), *_untold(job, checkpoint, prompts[0])),
        # Those in a store are where they are wanted, later.
        weights=None
        if is_stored(pinned.location)
        else describe_weights(checkpoint, job.model, on_gpu=job.resources.gpus_per_actor > 0),
        password=password,
    )


def _with_pinned_adapter(job: Job) -> Job:
    """Return the job with the adapter's commit, so that all processes load the same one."""
    if job.model.adapter is None:
        return job
    pinned = job.model.model_copy(update={"adapter": pin_adapter(job.model.adapter)})
    return job.model_copy(update={"model": pinned})


def salted(recipe: Recipe, salt: str | None) -> Recipe:
    """Return the recipe with a fingerprint of its own: rows made without the salt are not its."""
    if salt is None:
        return recipe
    fingerprint = _hash(json.dumps({**recipe.identity, "salt": salt}, sort_keys=True))
    provenance = replace(recipe.provenance, fingerprint=fingerprint)
    return replace(recipe, provenance=provenance, salt=salt)


def _identity(
    job: Job,
    schema: Schema,
    checkpoint: Checkpoint,
    encoder: PageEncoder,
    prompts: Sequence[str],
    examples: Examples,
) -> dict[str, Any]:
    adapter, document = job.model.adapter, job.unit == "document"
    adaptive = job.model.image_splitting == "adaptive"
    return {
        "task": job.task,
        "schema": f"{schema.id}@{schema.sha256[:16]}",
        "prompt": _hash("\0".join(prompts)),
        "examples": examples.digest if examples.shown else None,
        "unit": job.unit,
        "pages_per_sample": job.pages_per_sample if document else None,
        # Another selection would pack other pages together.
        "input.pages": job.input.pages if document else None,
        "model": f"{checkpoint.name}@{checkpoint.revision}",
        "model.adapter": None if adapter is None else adapter_revision(adapter),
        "model.quantization": job.model.quantization,
        "model.dtype": effective_dtype(job.model.dtype, job.resources.gpus_per_actor > 0),
        "pixels": repr(encoder),
        "model.split_below": job.model.split_below if adaptive else None,
        "render.renderer": job.render.renderer,
        "generation.max_new_tokens": job.generation.max_new_tokens,
        "generation.constrained": job.generation.constrained,
        "generation.max_items": job.generation.max_items,
    }


def _warnings(schema: Schema, checkpoint: Checkpoint) -> tuple[str, ...]:
    if checkpoint.schemas is None or schema.id in checkpoint.schemas:
        return ()
    known = ", ".join(checkpoint.schemas)
    return (
        f"model '{checkpoint.name}' was trained to answer {known} only; "
        f"its answers to {schema.id} mean nothing",
    )


def _revision(checkpoint: Checkpoint, adapter: str | None) -> str:
    """Say which weights answer: an adapter's revision stands behind its base's."""
    return checkpoint.revision + ("" if adapter is None else f"+{adapter}")


def _untold(job: Job, checkpoint: Checkpoint, prompt: str) -> Iterator[str]:
    """Say which of the job's own words the checkpoint's chat template leaves out."""
    said: dict[str, Sequence[str | Slot]] = {
        "preamble": (job.preamble or "",),
        "question": (job.question or "",),
        "prompt": parsed(job.prompt or ""),
        "examples": tuple(one.answer for one in job.examples if isinstance(one.answer, str)),
    }
    for key, parts in said.items():
        if any(isinstance(part, str) and part.strip() not in prompt for part in parts):
            yield f"{key}: the chat template of '{checkpoint.name}' leaves it out; it is not told"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
