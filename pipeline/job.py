"""The job: what to read, what to ask of it, and where the answers go.

Frozen pydantic models, one a section of the job file; a key they do not know is an error.
`pipeline.jobfile` reads them from YAML; docs/JOBS.md is the reference for users.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import normpath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pipeline.model_settings import Model
from pipeline.section import LONG_S, Location, SchemaRef, Section, listed
from pipeline.selection import parse_pages
from pipeline.store_settings import StoreSettings

TEXT_SCHEMA = "text.v1"
"""The built-in schema of task `ocr`."""

ANSWER_SCHEMA = "answer.v1"
"""The built-in schema of task `ask`."""


def _shared(path: str) -> str:
    if not path.startswith("/") or normpath(path).strip("/") == "":
        raise ValueError(f"{path!r}: write a folder's whole path, such as /mnt/shared")
    return normpath(path)


CustomAmount = Annotated[float, Field(gt=0, le=1 << 20)]
SharedPath = Annotated[Location, AfterValidator(_shared)]

_PAGES_PER_SAMPLE = 8
_OWN_SCHEMAS = {"ocr": TEXT_SCHEMA, "ask": ANSWER_SCHEMA}


class Input(Section):
    """What to read."""

    paths: Annotated[tuple[Location, ...], BeforeValidator(listed)] = Field(
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
    trust_manifest: bool = Field(
        default=False,
        description="Do not look for a manifest's objects in their store before they are read; "
        "its columns size and modified, if it has both, tell versions apart.",
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
    http: bool = Field(default=False, description="Read http:// and https:// addresses too.")
    http_max_mb: int = Field(
        default=50, ge=1, le=2048, description="MiB that a document at such an address may have."
    )

    @property
    def http_bytes(self) -> int:
        """The most bytes to fetch from a web address; 0 if none is to be read."""
        return self.http_max_mb << 20 if self.http else 0

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
        if self.trust_manifest and self.manifest is None:
            raise ValueError("trust_manifest: there is no manifest; name one, or remove it")
        return self


class Example(Section):
    """Pages and the answer that is right for them, shown to the model before each sample."""

    pages: Annotated[tuple[Location, ...], BeforeValidator(listed)] = Field(
        min_length=1, description="Files or URIs; all pages of each are shown."
    )
    answer: dict[str, Any] | str = Field(
        description="What the model should answer: an object that fits the schema; text for ocr."
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
        default=10.0, gt=0, le=LONG_S, description="CPU seconds that one try at a page may take."
    )
    wall_s: float = Field(
        default=60.0,
        gt=0,
        le=LONG_S,
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
    custom_per_actor: Mapping[str, CustomAmount] = Field(
        default={},
        description="Custom resources of a Ray cluster that each copy of the model takes, such as "
        "accelerator_type:A100: 0.001.",
    )
    custom_per_task: Mapping[str, CustomAmount] = Field(
        default={},
        description="Custom resources that each task of planning, drawing and committing takes, "
        "such as cpu_node: 0.01.",
    )
    max_restarts: int = Field(
        default=-1,
        ge=-1,
        description="Times that a copy of the model is started again after its machine or process "
        "is lost; -1 is without end.",
    )
    shared_paths: Annotated[tuple[SharedPath, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Folders that all machines of a cluster see at the same path (NFS).",
    )


class Limits(Section):
    """When to give an item up."""

    item_s: float = Field(
        default=600.0,
        gt=0,
        le=LONG_S,
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
    format: Literal["parquet", "iceberg", "delta"] = Field(
        default="parquet",
        description="Parquet files in the output; or also a table of Iceberg or Delta Lake, into "
        "which each run brings its documents in one snapshot.",
    )
    table: Location | None = Field(
        default=None,
        min_length=1,
        description="The table's name in the catalog, such as lake.receipts (iceberg), or its URI "
        "(delta).",
    )
    catalog: str | None = Field(
        default=None,
        min_length=1,
        description="An Iceberg catalog by its name in pyiceberg's own configuration; a SQLite "
        "catalog inside the output if null.",
    )

    @model_validator(mode="after")
    def _table_has_its_format(self) -> Self:
        if self.format == "parquet" and self.table is not None:
            raise ValueError("table: format parquet has none; set format: iceberg or delta")
        if self.format != "iceberg" and self.catalog is not None:
            raise ValueError(f"catalog: format {self.format} has none; set format: iceberg")
        if self.table is not None:
            _check_table(self.format, self.table)
        in_store = "://" in self.uri and not self.uri.startswith("file://")
        if self.format == "iceberg" and self.catalog is None and in_store:
            raise ValueError(
                "catalog is missing; the SQLite catalog needs an output on a disk: name a catalog "
                "of pyiceberg's configuration, or take format: delta"
            )
        return self


def _check_table(format: str, table: str) -> None:
    if format == "delta" and "/" not in table:
        raise ValueError(f"table: '{table}' is no folder or URI; write ./{table} if you mean one")
    if format == "iceberg" and not re.fullmatch(r"[\w-]+(\.[\w-]+)*", table):
        raise ValueError(
            f"table: '{table}' is no table's name: letters, digits, _ and - between dots: lake.a"
        )
    if format == "iceberg" and "." not in table:
        raise ValueError(f"table: '{table}' has no namespace; write lake.{table}")


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
        "or module:Model for a pydantic model. Needed for extract; ocr and ask have their own.",
    )
    task: Literal["extract", "ocr", "ask"] = Field(
        default="extract",
        description="extract fills the schema; ocr reads the text; ask answers a question.",
    )
    question: str | None = Field(
        default=None, min_length=1, description="What task ask asks of every document."
    )
    unit: Literal["page", "document"] = Field(
        default="page",
        description="What the model sees in one prompt: a page, or pages of one document.",
    )
    pages_per_sample: int = Field(
        default=_PAGES_PER_SAMPLE,
        ge=1,
        le=256,
        description="With unit document, the most pages in one prompt; a longer one gets several.",
    )
    prompt: str | None = Field(
        default=None,
        min_length=1,
        description="Instructions to the model, with {page} where an image goes and {text} where "
        "the pages' text layer goes; written from the schema if null.",
    )
    preamble: str | None = Field(
        default=None, min_length=1, description="What the model is told before anything else."
    )
    examples: tuple[Example, ...] = Field(
        default=(), description="Pages with their right answers, shown before each sample."
    )
    stores: StoreSettings = Field(
        default={},
        description="How to reach object stores, by the beginning of their URIs: s3://, or "
        "s3://bucket/folder.",
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
        own = _OWN_SCHEMAS.get(self.task)
        if own is not None and self.schema_ != own and "schema_" in self.model_fields_set:
            raise ValueError(f"task {self.task} has its own schema ({own}); leave schema out")
        return self

    @model_validator(mode="after")
    def _keys_are_of_use(self) -> Self:
        if self.pages_per_sample != _PAGES_PER_SAMPLE and self.unit == "page":
            raise ValueError("pages_per_sample: with unit page it is one; set unit: document")
        if self.generation.max_items is not None and self.task == "ocr":
            raise ValueError("generation.max_items: task ocr writes no lists; remove it")
        return self

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.task == "ask" and self.question is None and self.prompt is None:
            raise ValueError("question is missing; task ask needs one")
        if self.task != "ask" and self.question is not None:
            raise ValueError(f"question: task {self.task} asks none; set task: ask, or remove it")
        return self

    @property
    def schema_ref(self) -> str:
        """What the answers must fit: the task's own schema, or the job's."""
        return _OWN_SCHEMAS.get(self.task, self.schema_)
