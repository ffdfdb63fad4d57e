"""The job: what to read, what to ask of it, and where the answers go.

Frozen pydantic models, one a section of the job file; a key they do not know is an error.
`pipeline.jobfile` reads them from YAML; docs/JOBS.md is the reference for users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

TEXT_SCHEMA = "text.v1"
"""The built-in schema of task `ocr`."""

NO_CREDENTIALS = (
    "the URI holds a user, password or key; take it out and use the environment or a profile"
)

# Searched from the "://" on, not from the scheme's first letter: that would take time that grows
# with the square of a long text's length.
_USER = re.compile(
    r"""(?<=[\w+.-])(?<!\babfs)(?<!\babfss)(?<!\bhdfs)(?<!\bviewfs)://[^/?\s]*@   # user@
      | (?<=[\w+.-])://[^/?\s@\[]*:(?!\d*(?:[/?\s]|$))    # :password, whatever follows it""",
    re.VERBOSE | re.IGNORECASE,
)
_KEY = re.compile(
    r"""[?&;](?:[\w.-]*[_.-])?(?:access[_-]?key(?:[_-]?id)?|account[_-]?key
        |secret\w*|password|passwd|token|credentials?|sig|signature|api[_-]?key|private[_-]?key)=""",
    re.VERBOSE | re.IGNORECASE,
)


def holds_credentials(text: str) -> bool:
    """Return True if there is a URI in the text that names a user or password.

    Secret keys are pasted unescaped, slashes and all, so a colon that no port follows is enough.
    Azure's container@account and the user@ of HDFS say where a file is, and are let through.
    """
    for word in text.split() if "://" in text else ():
        _, _, rest = word.partition("://")
        if _USER.search(word) or _KEY.search(rest):
            return True
    return False


def _without_credentials(uri: str) -> str:
    if holds_credentials(uri):
        raise ValueError(NO_CREDENTIALS)
    return uri


Location = Annotated[str, AfterValidator(_without_credentials)]
"""A path or URI that may be shown and stored: it holds no credentials."""

SchemaRef = Annotated[Location, Field(min_length=1)]
"""A packaged name ("receipt.v1"), a path to a JSON Schema, or "module:Model" (pydantic)."""


_LONG_S = 1e6
"""The most seconds that a limit may have: what waits for them counts in numbers of fixed size."""


@dataclass(frozen=True, slots=True)
class PageSelection:
    """Page numbers from 1, as ascending ranges that neither overlap nor touch.

    A range is (first, last), both included; last is None when the range is open.
    """

    ranges: tuple[tuple[int, int | None], ...]

    def select(self, n_pages: int) -> tuple[int, ...]:
        """Return the selected pages of a document of `n_pages`, ascending."""
        return tuple(
            number
            for first, last in self.ranges
            for number in range(first, min(n_pages, n_pages if last is None else last) + 1)
        )

    def __str__(self) -> str:
        return ",".join(
            f"{first}-" if last is None else str(first) if first == last else f"{first}-{last}"
            for first, last in self.ranges
        )


def parse_pages(text: str) -> PageSelection:
    """Read a page selection such as "1-3,7", "5-" or "-3".

    Raises ValueError with one clear line if the text is not a selection.
    """
    merged: list[tuple[int, int | None]] = []
    for first, last in sorted(map(_page_range, text.split(",")), key=lambda span: span[0]):
        before, end = merged[-1] if merged else (first, first)
        if merged and (end is None or first <= end + 1):
            merged[-1] = (before, None if end is None or last is None else max(end, last))
        else:
            merged.append((first, last))
    return PageSelection(tuple(merged))


def _page_range(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"\s*([0-9]{0,9})\s*(-?)\s*([0-9]{0,9})\s*", text)
    if match is None or not (match[1] or match[3]) or (match[3] and not match[2]):
        raise ValueError(f"{text.strip()!r} is not a page or range; write pages like 1-3,7 or 5-")
    first = int(match[1] or 1)
    last = int(match[3]) if match[3] else (None if match[2] else first)
    if first == 0 or last == 0:
        raise ValueError(f"{text.strip()!r}: pages count from 1")
    if last is not None and last < first:
        raise ValueError(f"{text.strip()!r} runs backwards; write {last}-{first}")
    return first, last


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Section(BaseModel):
    """A part of the job file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Input(Section):
    """What to read."""

    paths: Annotated[tuple[Location, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="Files, folders, globs (** for any depth) or URIs (s3://, gs://, file://).",
    )
    manifest: Location | None = Field(
        default=None,
        min_length=1,
        description="A CSV or Parquet table with one document a row; its other columns are "
        "carried through to the output.",
    )
    uri_column: str = Field(
        default="uri", min_length=1, description="The manifest's column of paths or URIs."
    )
    pages: str | None = Field(
        default=None,
        description="Pages to read of every document, such as 1-3,7 or 5-; all if null.",
    )
    max_pages: int = Field(
        default=5000,
        ge=1,
        description="A document with more pages to read fails as too_many_pages.",
    )
    password_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds the password of encrypted documents.",
    )

    @field_validator("pages", mode="before")
    @classmethod
    def _normal_pages(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return str(parse_pages(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something_to_read(self) -> Self:
        if not self.paths and self.manifest is None:
            raise ValueError("nothing to read; name input.paths or input.manifest")
        return self


class Model(Section):
    """Which model answers."""

    name: Location = Field(
        default="nano",
        min_length=1,
        description="nano (bundled), a model id on the Hugging Face hub, or a local folder.",
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Branch, tag or commit of a hub model."
    )
    family: Literal["auto", "idefics2", "fake"] = Field(
        default="auto", description="The architecture; auto reads it from the checkpoint."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type of the weights; auto takes what suits the device."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto", description="The attention kernel."
    )
    image_splitting: Literal["auto", True, False] = Field(
        default="auto",
        description="Show each page as four quadrants and the whole; auto follows the checkpoint.",
    )
    adapter: Location | None = Field(
        default=None, min_length=1, description="A LoRA adapter to load on top: hub id or folder."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that the checkpoint brings along."
    )


class Generation(Section):
    """How the model answers. Decoding is always greedy."""

    max_new_tokens: int = Field(
        default=1024, ge=1, description="Tokens an answer may have; a longer one is truncated."
    )
    max_items: int | None = Field(
        default=None,
        ge=1,
        description="Items that a list may have; an answer with a longer one is truncated.",
    )
    constrained: bool = Field(
        default=True, description="Let the model write only JSON that fits the schema."
    )


class Render(Section):
    """How pages are drawn, and what drawing one may cost."""

    renderer: Literal["pdfium", "poppler"] = Field(
        default="pdfium", description="The library that draws PDF pages."
    )
    cpu_s: float = Field(
        default=10.0, gt=0, le=_LONG_S, description="CPU seconds that one try at a page may take."
    )
    wall_s: float = Field(
        default=60.0,
        gt=0,
        le=_LONG_S,
        description="Seconds by the clock that one try at a page may take.",
    )
    memory_mb: int = Field(
        default=512,
        ge=64,
        le=1 << 20,
        description="Memory in MiB that the renderer may add while drawing.",
    )


class Actors(Section):
    """How many copies of the model run."""

    min: int = Field(default=1, ge=1, description="Copies kept running.")
    max: int = Field(default=1, ge=1, description="Copies at most.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is less than min ({self.min}); raise max")
        return self


class Resources(Section):
    """What the run may use."""

    cpus: float | None = Field(
        default=None, gt=0, description="CPU cores for a whole local run; all if null."
    )
    gpus_per_actor: float = Field(
        default=0, ge=0, description="GPUs for each copy of the model; may be a fraction."
    )
    cpus_per_actor: float | None = Field(
        default=None, gt=0, description="CPU cores for each copy of the model."
    )
    actors: Actors = Field(default=Actors(), description="How many copies of the model run.")
    batch: int = Field(default=64, ge=1, description="Samples that a model answers side by side.")


class Limits(Section):
    """When to give an item up."""

    item_s: float = Field(
        default=600.0,
        gt=0,
        le=_LONG_S,
        description="Seconds that one document or page may take in a stage, and the model for a "
        "step; the process that overruns them is ended. render has limits of its own.",
    )
    attempts: int = Field(
        default=3,
        ge=1,
        description="Processes that one item may bring down before it is given up.",
    )


class Output(Section):
    """Where the tables go."""

    uri: Location = Field(min_length=1, description="Folder or URI of the tables.")
    format: Literal["parquet"] = Field(default="parquet", description="The tables' format.")


class Job(Section):
    """A whole job file."""

    name: str = Field(
        default="job", min_length=1, description="What people call it; by default the file's name."
    )
    input: Input = Field(description="What to read.")
    schema_: SchemaRef = Field(
        default=TEXT_SCHEMA,
        alias="schema",
        description="What to extract: a packaged name such as receipt.v1, a path to a JSON Schema, "
        "or module:Model for a pydantic model. Needed for task extract; task ocr has its own.",
    )
    task: Literal["extract", "ocr"] = Field(
        default="extract", description="extract fills the schema; ocr reads the text."
    )
    unit: Literal["page"] = Field(default="page", description="What the model sees in one prompt.")
    prompt: str | None = Field(
        default=None,
        min_length=1,
        description="Instructions to the model; written from the schema if null.",
    )
    model: Model = Field(default=Model(), description="Which model answers.")
    generation: Generation = Field(default=Generation(), description="How the model answers.")
    render: Render = Field(default=Render(), description="How pages are drawn.")
    resources: Resources = Field(default=Resources(), description="What the run may use.")
    limits: Limits = Field(default=Limits(), description="When to give an item up.")
    output: Output = Field(description="Where the tables go.")

    @model_validator(mode="after")
    def _schema_fits_task(self) -> Self:
        if self.task == "extract" and "schema_" not in self.model_fields_set:
            raise ValueError("schema is missing; task extract needs one, such as receipt.v1")
        if self.task == "ocr" and self.schema_ != TEXT_SCHEMA:
            raise ValueError(f"task ocr has its own schema ({TEXT_SCHEMA}); leave schema out")
        return self
