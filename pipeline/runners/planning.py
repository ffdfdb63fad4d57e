"""Planning a run: which documents and pages there are, and which of them are still to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from pipeline.errors import ConservationError, InputError
from pipeline.lake.done import DoneSet
from pipeline.lake.keys import as_array, uri_key
from pipeline.lake.layout import Layout
from pipeline.lake.plans import (
    chunks,
    documents_table,
    plans_of,
    plans_table,
    read_rows,
    shards_table,
    write_rows,
)
from pipeline.records import Document, Plan, Shard
from pipeline.runners.progress import RunProgress
from pipeline.runners.recipe import Recipe
from pipeline.runners.runner import Runner
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import shards


@dataclass(frozen=True, slots=True)
class Planned:
    """What planning came to. `file` has the plans and `listing` what was listed; `total_bytes` is
    the documents' size."""

    file: str
    listing: str
    documents: int
    pages: int
    failures: Mapping[str, int]
    total_bytes: int
    ignored: int

    def to_json(self) -> str:
        """Return the plan's figures as one JSON object."""
        return json.dumps({k: v for k, v in asdict(self).items() if k not in ("file", "listing")})

    def text(self) -> str:
        """Return the plan's figures for people."""
        lines = [
            f"{self.documents:,} documents, {self.pages:,} pages, {self.total_bytes / 1e6:,.1f} MB"
        ]
        lines += [f"{count:,} will fail: {kind}" for kind, count in sorted(self.failures.items())]
        if self.ignored:
            lines.append(f"{self.ignored:,} files of other types are ignored")
        return "\n".join(lines)


def plan_documents(
    layout: Layout,
    recipe: Recipe,
    runner: Runner,
    discovery: Discovery,
    limit: int | None,
    progress: RunProgress,
) -> Planned:
    """List documents, `limit` at most, and plan each; both lists are streamed into files.

    Raises
    ------
    InputError
        If there is no document at all.
    """
    run_id = recipe.provenance.run_id
    progress.planning()
    listed = 0
    total_bytes = 0

    def counted() -> Iterator[Document]:
        nonlocal listed, total_bytes
        for document in islice(discovery, limit):
            listed += 1
            total_bytes += max(0, document.size)
            yield document

    tables = (documents_table(documents) for documents in chunks(counted()))
    listing = write_rows(layout, run_id, "documents", tables)
    if listed == 0:
        where = ", ".join(recipe.job.input.paths) or recipe.job.input.manifest
        raise InputError(
            f"input: no documents in {where} ({discovery.ignored} files of other types); "
            "pagelake reads PDF, PNG, JPEG, WebP and TIFF"
        )

    documents = pages = 0
    failures: Counter[str] = Counter()

    def followed() -> Iterator[Plan]:
        nonlocal documents, pages
        for plan in runner.plan(listing):
            documents += 1
            pages += len(plan.page_numbers)
            if plan.failure is not None:
                failures[plan.failure.kind] += 1
            progress.planned(documents, pages)
            yield plan

    file = write_rows(layout, run_id, "plans", (plans_table(p) for p in chunks(followed())))
    conserve("documents listed and planned", listed, documents)
    return Planned(file, listing, documents, pages, dict(failures), total_bytes, discovery.ignored)


def read_plans(layout: Layout, file: str) -> Iterator[Plan]:
    """Stream the plans of a run back."""
    for table in read_rows(layout, file):
        yield from plans_of(table)


@dataclass(frozen=True, slots=True)
class Work:
    """The shards to do: `pages` of `documents`. `pages_doubled` belong to files that have the same
    bytes as another one, whose pages serve both."""

    file: str
    documents: int
    pages: int
    pages_doubled: int


def shard_work(layout: Layout, recipe: Recipe, planned: Planned, done: DoneSet) -> Work:
    """Pack the planned pages that are not done into shards, each content once."""
    documents = pages = doubled = 0

    def once() -> Iterator[Plan]:
        nonlocal documents, doubled
        first = _first_of_content(layout, planned.file)
        for plan, is_first in zip(read_plans(layout, planned.file), first, strict=True):
            if not is_first:
                doubled += len(plan.page_numbers)
                continue
            documents += any(
                not done.contains(str(plan.document_id), (n,)) for n in plan.page_numbers
            )
            yield plan

    def followed() -> Iterator[Shard]:
        nonlocal pages
        for shard in shards(once(), done.contains):
            pages += shard.n_pages
            yield shard

    tables = (shards_table(some) for some in chunks(followed()))
    file = write_rows(layout, recipe.provenance.run_id, "shards", tables)
    return Work(file, documents, pages, doubled)


def _first_of_content(layout: Layout, plan_file: str) -> Iterator[bool]:
    """Yield, a plan at a time, whether it is the first with its content: 16 bytes a document."""
    keys = as_array(
        uri_key(str(plan.document_id) if plan.failure is None else f"failed:{plan.document.uri}")
        for plan in read_plans(layout, plan_file)
    )
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    yield from first.tolist()


def conserve(what: str, expected: int, found: int) -> None:
    """Law 1: every document and page ends in exactly one row with exactly one state."""
    if expected != found:
        raise ConservationError(f"{what} differ: {expected} and {found}")
