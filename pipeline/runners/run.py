"""A run from job to summary: list, plan, do what is not done, assemble, add up."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

import numpy as np
import yaml
from rich.console import Console

from pipeline import __version__
from pipeline.errors import ConservationError, InputError, JobError
from pipeline.job import Job
from pipeline.lake.done import DoneSet, done_set
from pipeline.lake.keys import as_array, uri_key
from pipeline.lake.layout import JOB, Layout
from pipeline.lake.ledger import Ledger
from pipeline.lake.plans import (
    chunks,
    documents_table,
    plans_of,
    plans_table,
    read_rows,
    shards_table,
    write_rows,
)
from pipeline.records import Document, FailureKind, Plan, Shard
from pipeline.runners.claim import claim, forget_others, note
from pipeline.runners.progress import RunProgress
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.runner import Runner
from pipeline.runners.steps import Receipt, sums
from pipeline.runners.summary import Summary
from pipeline.schema import Validator
from pipeline.stages.assemble import assemble
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import shards


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job, as against what the job is.

    `retry` None does all failed pages again; a set, only failures of those kinds. `fresh` starts
    over; the old tables stay until the new ones are finished.
    """

    runner: Literal["ray", "local"] = "ray"
    limit: int | None = None
    retry: frozenset[FailureKind] | None = None
    fresh: bool = False


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


def failure_kinds(text: str | None) -> frozenset[FailureKind] | None:
    """Read "render_timeout,model_error". Raises JobError for a kind that there is not."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in set(FailureKind):
            raise JobError(
                f"--retry: '{name}' is no failure kind; there are {', '.join(FailureKind)}"
            )
    return frozenset(FailureKind(name) for name in names)


def run(job: Job, options: Options, console: Console) -> Summary:
    """Run a job to its end. Resumes by itself: pages that earlier runs committed are not redone.

    Raises
    ------
    UserError
        If the job, its inputs, its model or its output cannot be used as they are.
    RunError
        If the run itself fails; what was committed stays, and the next run goes on from there.
    """
    started = time.monotonic()
    recipe = prepare(job, _new_run_id())
    for warning in recipe.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    layout = Layout.open(job.output.uri)
    layout.prepare()
    ledger = Ledger(layout)
    recipe = claim(ledger, recipe, fresh=options.fresh)
    with _runner(recipe, options.runner) as runner, RunProgress(console) as progress:
        planned = _plan(layout, recipe, runner, options.limit, progress)
        done = done_set(ledger, recipe.provenance.fingerprint, options.retry)
        work = _shard(layout, recipe, planned, done)
        note(layout, recipe)
        layout.write_bytes(JOB, _job_yaml(recipe.job).encode())
        receipt = _read_pages(runner, work, progress)
        _conserve("pages to do and pages committed", work.pages, receipt.pages)
        progress.assembling()
        assembly = assemble(
            ledger,
            _plans(layout, planned.file),
            recipe.provenance,
            recipe.schema.document,
            Validator(recipe.schema.document).violation,
            plan_files=[planned.file],
        )
    _conserve("documents planned and written", planned.documents, sum(assembly.documents.values()))
    _conserve("pages planned and written", planned.pages, sum(assembly.pages.values()))
    forget_others(layout, recipe.provenance.fingerprint)
    for paper in (planned.listing, work.file):
        layout.delete(paper)
    summary = Summary(
        run_id=recipe.provenance.run_id,
        output=job.output.uri,
        documents=dict(assembly.documents),
        pages=dict(assembly.pages),
        failures=dict(assembly.failures),
        done=receipt,
        pages_reused=sum(assembly.pages.values()) - work.pages - work.pages_doubled,
        files_ignored=planned.ignored,
        documents_carried=assembly.carried,
        wall_s=time.monotonic() - started,
        warnings=recipe.warnings,
    )
    layout.write_bytes(_metrics_file(recipe), summary.to_json().encode())
    return summary


def dry_run(job: Job, options: Options, console: Console) -> Planned:
    """List and plan a job's documents without touching its output or loading its model."""
    with tempfile.TemporaryDirectory(prefix="pagelake-") as folder:
        scratch = job.model_copy(update={"output": job.output.model_copy(update={"uri": folder})})
        recipe = prepare(scratch, _new_run_id())
        layout = Layout.open(folder)
        # Workers of a remote cluster could not read the folder.
        name = "local" if os.environ.get("RAY_ADDRESS") else options.runner
        with _runner(recipe, name) as runner, RunProgress(console) as progress:
            return _plan(layout, recipe, runner, options.limit, progress)


def _new_run_id() -> str:
    """Sortable by time, to the second; the random part keeps two runs of one second apart."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _runner(recipe: Recipe, name: Literal["ray", "local"]) -> Runner:
    if name == "local":
        from pipeline.runners.local import LocalRunner

        return LocalRunner(recipe)
    from pipeline.runners.ray_data import RayRunner

    return RayRunner(recipe)


def _job_yaml(job: Job) -> str:
    settings = job.model_dump(mode="json", by_alias=True)
    return f"# written by pagelake {__version__}\n" + yaml.safe_dump(settings, sort_keys=False)


def _metrics_file(recipe: Recipe) -> str:
    return f"_pagelake/runs/{recipe.provenance.run_id}/metrics.json"


def _plan(
    layout: Layout, recipe: Recipe, runner: Runner, limit: int | None, progress: RunProgress
) -> Planned:
    run_id = recipe.provenance.run_id
    progress.planning()
    discovery = Discovery(recipe.job.input)
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
    _conserve("documents listed and planned", listed, documents)
    return Planned(file, listing, documents, pages, dict(failures), total_bytes, discovery.ignored)


def _plans(layout: Layout, file: str) -> Iterator[Plan]:
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


def _shard(layout: Layout, recipe: Recipe, planned: Planned, done: DoneSet) -> Work:
    documents = pages = doubled = 0

    def once() -> Iterator[Plan]:
        nonlocal documents, doubled
        first = _first_of_content(layout, planned.file)
        for plan, is_first in zip(_plans(layout, planned.file), first, strict=True):
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
        for plan in _plans(layout, plan_file)
    )
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    yield from first.tolist()


def _read_pages(runner: Runner, work: Work, progress: RunProgress) -> Receipt:
    if work.pages == 0:
        return sums([])
    progress.starting(work.documents, work.pages)

    def followed() -> Iterator[Receipt]:
        for receipt in runner.pages(work.file):
            progress.committed(receipt)
            yield receipt

    return sums(followed())


def _conserve(what: str, expected: int, found: int) -> None:
    """Law 1: every document and page ends in exactly one row with exactly one state."""
    if expected != found:
        raise ConservationError(f"{what} differ: {expected} and {found}")
