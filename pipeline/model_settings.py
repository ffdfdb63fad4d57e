"""Which model answers, and how it is loaded: the section `model` of a job."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.section import Location, Section

_EVEN_ODDS = 0.5


class Model(Section):
    """Which model answers."""

    name: Location = Field(
        default="nano",
        min_length=1,
        description="nano (bundled), a model id on the Hugging Face hub, or a folder, local or in "
        "a store (s3://bucket/idefics2).",
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Branch, tag or commit of a hub model."
    )
    family: str = Field(
        default="auto", description="The architecture; auto reads it from the checkpoint."
    )
    chat_template: Literal["auto", "default", "plain"] = Field(
        default="auto",
        description="auto takes the checkpoint's chat template, default that of its family, plain "
        "none, as base models want it.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type of the weights; auto takes what suits the device."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto", description="The attention kernel."
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        default="none",
        description="Hold the weights in 4 bits (NF4, double quantization) or 8, by bitsandbytes.",
    )
    image_splitting: Literal["auto", "adaptive", True, False] = Field(
        default="auto",
        description="Show each page in parts and whole; auto follows the checkpoint, adaptive "
        "shows the whole first, and the parts where the answer is uncertain or invalid.",
    )
    split_below: float = Field(
        default=_EVEN_ODDS,
        ge=0,
        le=1,
        description="With adaptive splitting, an answer is uncertain if a token of it has a "
        "probability below this.",
    )
    longest_edge: int | None = Field(
        default=None,
        ge=14,
        description="The most pixels that a tile's longer side may have; the checkpoint's if null.",
    )
    shortest_edge: int | None = Field(
        default=None,
        ge=14,
        description="The fewest pixels that a tile's shorter side may have; the checkpoint's if "
        "null.",
    )
    adapter: Location | None = Field(
        default=None, min_length=1, description="A LoRA adapter to load on top: hub id or folder."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that the checkpoint brings along."
    )

    @model_validator(mode="after")
    def _threshold_is_of_use(self) -> Self:
        if self.split_below != _EVEN_ODDS and self.image_splitting != "adaptive":
            raise ValueError("split_below: only image_splitting: adaptive looks at it; set that")
        return self
