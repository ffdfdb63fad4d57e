"""The training job: a file like jobs/train_nano.yaml, read into frozen pydantic models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.configfile import checked, find, merged, parse_overrides, read
from pipeline.errors import JobError
from pipeline.section import Section


class Tower(Section):
    """A stack of transformer layers."""

    width: int = Field(ge=4, description="Size of the hidden states.")
    layers: int = Field(ge=1, description="Number of layers.")
    heads: int = Field(ge=1, description="Attention heads; they share the width.")
    feed_forward: int = Field(ge=1, description="Width of the layers' middle.")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) does not divide width ({self.width})")
        return self


class Architecture(Section):
    """Sizes of the reader; the resampler has one latent for every patch of the canvas."""

    canvas: tuple[PositiveInt, PositiveInt] = Field(
        default=(168, 224), description="Width and height in pixels."
    )
    patch: int = Field(default=14, ge=1, description="Side of a square patch in pixels.")
    vision: Tower = Tower(width=192, layers=4, heads=6, feed_forward=768)
    resampler_heads: int = Field(default=6, ge=1, description="Attention heads of the resampler.")
    text: Tower = Tower(width=192, layers=4, heads=4, feed_forward=512)
    context: int = Field(default=2048, ge=64, description="Longest prompt and answer, in tokens.")

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if any(side % self.patch for side in self.canvas):
            raise ValueError(
                f"canvas {self.canvas} is not made of whole {self.patch}-pixel patches"
            )
        return self

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.text.width % self.resampler_heads:
            heads, width = self.resampler_heads, self.text.width
            raise ValueError(f"resampler_heads ({heads}) does not divide text.width ({width})")
        if self.context < 2 * self.latents:
            raise ValueError(f"context ({self.context}) is less than twice {self.latents} latents")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of the canvas: (columns, rows)."""
        return self.canvas[0] // self.patch, self.canvas[1] // self.patch

    @property
    def latents(self) -> int:
        """Latents of the resampler: one a patch."""
        return self.grid[0] * self.grid[1]


class LossWeights(Section):
    """How much each loss counts, see `pipeline.pretrain.coach`."""

    eye: float = Field(default=0, ge=0, description="Characters, from the vision tower.")
    place: float = Field(default=0, ge=0, description="Rows and columns, from the vision tower.")
    memory: float = Field(default=0, ge=0, description="Characters, from the latents.")
    pointer_last: float = Field(default=0, ge=0, description="Where the last character was.")
    pointer_next: float = Field(default=0, ge=0, description="Where the next character is.")
    answer: float = Field(default=0, ge=0, description="The answer's tokens.")


class Stage(Section):
    """A part of the training."""

    name: str = Field(min_length=1, description="How the curves call it.")
    share: float = Field(gt=0, le=1, description="Its part of the whole time.")
    dense: float = Field(
        default=0, ge=0, le=1, description="Part of the batches that are pages full of text."
    )
    ocr: float = Field(default=0, ge=0, le=1, description="Part of the answers that are `text.v1`.")
    route: bool = Field(
        default=False, description="Begin by pointing every latent at its own patch."
    )
    weights: LossWeights = Field(description="What counts in it.")


class Rates(Section):
    """Learning rates; they warm up at the start of every stage and decay at the end of all."""

    matrices: float = Field(default=0.02, gt=0, description="Of Muon, for the layers' matrices.")
    others: float = Field(default=2e-3, gt=0, description="Of AdamW, for all else.")
    routing: float = Field(default=3e-4, gt=0, description="Of the resampler's aim, once pointed.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay.")
    warm_up: int = Field(default=100, ge=0, description="Steps from nothing to the full rate.")
    decay: float = Field(default=0.4, ge=0, le=1, description="Part of the time in linear decay.")


class TrainJob(Section):
    """A reader trained from scratch on made documents."""

    name: str = Field(min_length=1, description="Name of the reader.")
    output: str = Field(min_length=1, description="Folder of checkpoint, curves and the reader.")
    minutes: float = Field(gt=0, description="Time to train, without that of validations.")
    steps: int | None = Field(
        default=None, ge=1, description="Train so many steps instead, whatever time they take."
    )
    seed: int = Field(default=0, description="Another seed, another reader.")
    processes: int = Field(
        default=0, ge=0, description="Copies that train together on CPUs; 0 is one a core."
    )
    batch: int = Field(default=8, ge=1, description="Pages a step of one process.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Of the arithmetic; auto is bfloat16 where hardware has it."
    )
    architecture: Architecture = Architecture()
    rates: Rates = Rates()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    checkpoint_minutes: float = Field(default=5, gt=0, description="Time between checkpoints.")
    validate_minutes: float = Field(default=10, gt=0, description="Time between validations.")
    validate_documents: int = Field(default=96, ge=1, description="Documents of a validation.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = sum(stage.share for stage in self.stages)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the stages' shares add up to {total:g}, not to 1")
        return self


def load_train_job(
    name_or_path: str, overrides: Sequence[str] = (), output: str | None = None
) -> TrainJob:
    """Read a training job, by path or packaged name, with the command line's changes.

    `output` is relative to the current folder. Raises JobError, one line naming the file, the key
    and the mend.
    """
    path = find(name_or_path)
    changes = parse_overrides(overrides)
    file = read(path)
    if "input" in file or "schema" in file:
        raise JobError(f"{path}: this job reads documents; run it with pagelake run")
    tree = merged({"name": path.stem} | file, changes)
    if output is not None:
        tree = merged(tree, {"output": output})
    return checked(TrainJob, tree, changes, path)
