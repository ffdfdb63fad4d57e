"""What parts of settings files have in common, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.credentials import NO_CREDENTIALS, holds_credentials


def _without_credentials(uri: str) -> str:
    if holds_credentials(uri):
        raise ValueError(NO_CREDENTIALS)
    return uri


Location = Annotated[str, AfterValidator(_without_credentials)]
"""A path or URI that may be shown and stored: it holds no credentials."""

SchemaRef = Annotated[Location, Field(min_length=1)]
"""A packaged name ("receipt.v1"), a path to a JSON Schema, or "module:Model" (pydantic)."""


LONG_S = 1e6
"""The most seconds that a limit may have: what waits for them counts in numbers of fixed size."""


def listed(value: Any) -> Any:
    """Let one text stand for a list of one."""
    return (value,) if isinstance(value, str) else value


class Section(BaseModel):
    """A part of the job file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )
