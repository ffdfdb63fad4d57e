"""The fine-tuning job: a file with `data` in it, read into frozen pydantic models."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.configfile import Tree, checked, find, merged, parse_overrides, read
from pipeline.errors import JobError
from pipeline.job import TEXT_SCHEMA, Job, Render
from pipeline.model_settings import Model
from pipeline.schema import is_path
from pipeline.section import Location, SchemaRef, Section


class Data(Section):
    """Documents and the answers that are right for them."""

    train: Location = Field(
        min_length=1,
        description="What to learn: JSON Lines or Parquet with the columns uri, pages, question, "
        "answer, turns; or the output folder of a run that a person has corrected.",
    )
    eval: Location | None = Field(
        default=None, min_length=1, description="What to measure with, in the same formats."
    )
    eval_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Without eval, the share of train's documents that are kept to measure with.",
    )


class Lora(Section):
    """Low-rank adapters (Hu et al., arXiv:2106.09685)."""

    rank: int = Field(default=16, ge=1, description="Rank of the two matrices.")
    alpha: int = Field(default=32, ge=1, description="They count alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of their inputs.")
    targets: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Ends of the names of the linear layers that get one, such as q_proj; all "
        "that are not frozen, but the output head, if null.",
    )


class Freeze(Section):
    """What does not learn."""

    text: bool | None = Field(
        default=None,
        description="The text model; as the checkpoint's config says (IDEFICS-1) if null.",
    )
    vision: bool | None = Field(
        default=None,
        description="The vision tower; if null as the checkpoint's config says (IDEFICS-1), and "
        "where it says nothing yes for lora, no for full.",
    )
    except_: tuple[str, ...] | None = Field(
        default=None,
        alias="except",
        description="What learns nevertheless: module types (LayerNorm, Linear, Embedding) or "
        "parts of parameters' names; as the checkpoint's config says if null.",
    )


class Resources(Section):
    """What the training may use."""

    gpus_per_worker: int = Field(default=0, ge=0, le=1, description="1 to train on a GPU.")
    cpus_per_worker: float | None = Field(
        default=None,
        gt=0,
        description="CPU cores of a worker; if null all of the machine's, or one "
        "each of several workers.",
    )
    loaders: int = Field(
        default=0, ge=0, description="Processes that read drawn pages ahead of the model."
    )


class FinetuneJob(Section):
    """A checkpoint, fine-tuned on documents."""

    name: str = Field(default="job", min_length=1, description="By default the file's name.")
    schema_: SchemaRef = Field(
        default=TEXT_SCHEMA, alias="schema", description="As in a run's job; needed for extract."
    )
    task: Literal["extract", "ocr", "ask"] = Field(default="extract", description="As in a run.")
    question: str | None = Field(
        default=None, min_length=1, description="As in a run; rows may have their own."
    )
    unit: Literal["page", "document"] = Field(default="page", description="As in a run.")
    pages_per_sample: int = Field(
        default=8, ge=1, le=256, description="With unit document, the most pages in one prompt."
    )
    prompt: str | None = Field(default=None, min_length=1, description="As in a run.")
    preamble: str | None = Field(default=None, min_length=1, description="As in a run.")
    model: Model = Field(default=Model(), description="What to start from; as in a run.")
    render: Render = Field(default=Render(), description="How pages are drawn; as in a run.")
    data: Data = Field(description="What to learn, and what to measure with.")
    method: Literal["lora", "full"] = Field(
        default="lora",
        description="lora trains adapters beside frozen weights, full the weights themselves; "
        "lora on model.quantization nf4 is QLoRA.",
    )
    lora: Lora = Field(default=Lora(), description="The adapters of method lora.")
    freeze: Freeze = Field(default=Freeze(), description="What does not learn.")
    learn_user_turns: bool = Field(
        default=False, description="Learn to write what system and user say, too."
    )
    epochs: float = Field(default=3, gt=0, description="How often each sample is seen.")
    steps: int | None = Field(default=None, ge=1, description="Steps in all, instead of epochs.")
    batch: int = Field(default=1, ge=1, description="Samples that a worker reads side by side.")
    accumulate: int = Field(default=1, ge=1, description="Batches of a worker to a step.")
    learning_rate: float = Field(default=1e-4, gt=0, description="The highest.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="How the rate falls after the warm-up."
    )
    warm_up: int = Field(default=0, ge=0, description="Steps from nothing to the full rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled (AdamW).")
    checkpointing: bool = Field(
        default=False, description="Compute activations twice to hold fewer of them."
    )
    seed: int = Field(default=0, ge=0, description="Of adapters, order and dropout.")
    save_every: int = Field(default=200, ge=1, description="Steps between checkpoints.")
    eval_every: int | None = Field(
        default=None, ge=1, description="Steps between measurements; at the end only if null."
    )
    eval_documents: int = Field(
        default=64, ge=1, description="Of the samples to measure with, at most so many."
    )
    max_new_tokens: int = Field(
        default=1024, ge=1, description="Tokens that an answer may have when it is measured."
    )
    constrained: bool = Field(
        default=True, description="Hold answers to the schema when they are measured."
    )
    output: Location = Field(
        min_length=1, description="Folder of drawn pages, checkpoints, curve, and the result."
    )
    merge: bool = Field(
        default=False, description="With lora: save whole weights, the adapters added to them."
    )
    workers: int = Field(
        default=1, ge=1, description="Copies that train together, through Ray Train if over 1."
    )
    resources: Resources = Field(default=Resources(), description="What the training may use.")

    @model_validator(mode="after")
    def _fits_a_run(self) -> Self:
        if self.task == "extract" and "schema_" not in self.model_fields_set:
            raise ValueError("schema is missing; task extract needs one, such as receipt.v1")
        try:
            self.as_run()
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(str(first.get("ctx", {}).get("error", first["msg"]))) from None
        return self

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.model.adapter is not None:
            raise ValueError("model.adapter: training starts from whole weights; merge it first")
        if self.model.dtype == "float16":
            raise ValueError("model.dtype: float16 loses small gradients; set bfloat16 or float32")
        if self.model.image_splitting == "adaptive":
            raise ValueError("model.image_splitting: adaptive is for runs; set true or false")
        if self.model.quantization != "none" and self.method == "full":
            raise ValueError("method: quantized weights cannot learn; set lora")
        if self.model.quantization != "none" and self.merge:
            raise ValueError(
                "merge: quantized weights cannot be added to; set it to false, and name the "
                "adapter in model.adapter"
            )
        if self.method == "full" and self.merge:
            raise ValueError("merge: full trains whole weights; leave it out")
        return self

    def as_run(self, question: str | None = None) -> Job:
        """Return the job of a run that asks what this training teaches.

        A row's own `question` takes the place of the job's: of its instructions, but in task ask.
        """
        asked: dict[str, Any] = {"prompt": self.prompt, "question": self.question}
        if self.task == "ask":
            # Rows may have what the job leaves out.
            asked["question"] = question or self.question or (None if self.prompt else "?")
        elif question is not None:
            asked["prompt"] = question
        if "schema_" in self.model_fields_set:
            asked["schema"] = self.schema_
        shared = ("name", "task", "unit", "pages_per_sample", "preamble", "model", "render")
        return Job.model_validate(
            {
                "input": {"paths": [self.data.train]},
                "generation": {
                    "constrained": self.constrained,
                    "max_new_tokens": self.max_new_tokens,
                },
                "output": {"uri": self.output},
                **{key: getattr(self, key) for key in shared},
                **asked,
            }
        )


def is_finetune(tree: Tree) -> bool:
    """Return True if a job file's keys are those of a fine-tuning."""
    return "data" in tree


def load_finetune_job(
    name_or_path: str, overrides: Sequence[str] = (), output: str | None = None
) -> FinetuneJob:
    """Read a fine-tuning job, by path or packaged name, with the command line's changes.

    Paths in the file are relative to its folder; `output`, and paths on the command line, to the
    current one. Raises JobError, one line naming the file, the key and the mend.
    """
    path = find(name_or_path)
    changes = parse_overrides(overrides)
    file = read(path)
    if "input" in file:
        raise JobError(f"{path}: this job reads documents; run it with pagelake run")
    tree = {"name": path.stem} | _anchored(file, path.parent.absolute())
    tree = merged(tree, _anchored(changes, Path.cwd()))
    if output is not None:
        tree = merged(tree, _anchored({"output": output}, Path.cwd()))
    return checked(FinetuneJob, tree, changes, path)


def _anchored(tree: Tree, folder: Path) -> Tree:
    """Return `tree` with its paths made absolute: the output's from here, others from `folder`."""
    anchored = dict(tree)
    _anchor(anchored, "output", Path.cwd())
    if isinstance(tree.get("data"), dict):
        anchored["data"] = data = dict(tree["data"])
        for key in ("train", "eval"):
            _anchor(data, key, folder)
    if isinstance(schema := tree.get("schema"), str) and is_path(schema):
        _anchor(anchored, "schema", folder)
    if isinstance(tree.get("model"), dict):
        anchored["model"] = model = dict(tree["model"])
        if str(model.get("name")).startswith(("./", "../", "~/")):
            _anchor(model, "name", folder)
    return anchored


def _anchor(section: Tree, key: str, folder: Path) -> None:
    value = section.get(key)
    if isinstance(value, str) and value and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        section[key] = os.path.normpath(folder / Path(value).expanduser())
