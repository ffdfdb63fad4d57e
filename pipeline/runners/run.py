"""A run from job to summary: list, plan, do what is not done, assemble, add up."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import yaml
from rich.console import Console

from pipeline import __version__
from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.lake.done import done_set
from pipeline.lake.known import carry, forget
from pipeline.lake.layout import JOB, Layout
from pipeline.lake.ledger import Ledger
from pipeline.lake.lock import Lock
from pipeline.lake.plans import forget_run
from pipeline.lake.publish import check, publish
from pipeline.lake.stores import Stores
from pipeline.lake.swap import heal
from pipeline.records import FailureKind
from pipeline.runners.claim import claim, forget_others, note
from pipeline.runners.listing import list_documents
from pipeline.runners.newcomers import Newcomers
from pipeline.runners.notes import Item
from pipeline.runners.planning import (
    Planned,
    Work,
    conserve,
    plan_documents,
    read_plans,
    shard_work,
)
from pipeline.runners.progress import RunProgress
from pipeline.runners.receipt import Receipt, sums
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.runner import Runner
from pipeline.runners.summary import Summary
from pipeline.runners.watch import Watch, notes_of
from pipeline.schema import Validator
from pipeline.stages.assemble import Assembly, assemble
from pipeline.stages.discover import Discovery


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a job, as against what the job is.

    `retry` None does all failed pages again; a set, only failures of those kinds. `fresh` starts
    over; the old tables stay until the new ones are finished. `incremental` takes in only what the
    published table does not have, and `limit` is then of those.
    """

    runner: Literal["ray", "local"] = "ray"
    limit: int | None = None
    retry: frozenset[FailureKind] | None = None
    fresh: bool = False
    incremental: bool = False

    def check(self) -> None:
        """Raise JobError if they contradict each other."""
        if self.fresh and self.retry is not None:
            raise JobError("--retry goes on with a run and --fresh starts over; give one of them")


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

    An incremental one that finds nothing new leaves the tables as they are, unless an earlier run
    was killed as it published them; its summary has no `run_id`.

    Raises
    ------
    UserError
        If the job, its inputs, its model or its output cannot be used as they are.
    RunError
        If the run itself fails; what was committed stays, and the next run goes on from there.
    """
    started = time.monotonic()
    options.check()
    # Says at once what of the input is not there.
    discovery = Discovery(job.input, Stores.of(job.stores), may_be_empty=options.incremental)
    recipe = prepare(job, _new_run_id())
    layout = recipe.layout
    layout.prepare()
    of_table = check(job, layout, recipe.schema.id, recipe.schema.document)
    recipe = replace(recipe, warnings=(*recipe.warnings, *of_table))
    for warning in recipe.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    if recipe.weights is not None:
        console.print(recipe.weights, highlight=False, markup=False, soft_wrap=True)
    with Lock(layout, recipe.provenance.run_id) as lock:
        return _run(Ledger(layout), lock, recipe, discovery, options, console, started)


def _run(
    ledger: Ledger,
    lock: Lock,
    recipe: Recipe,
    discovery: Discovery,
    options: Options,
    console: Console,
    started: float,
) -> Summary:
    """Run on an output that nobody else writes to."""
    job, layout = recipe.job, ledger.layout
    recipe = claim(ledger, recipe, fresh=options.fresh)
    newcomers = None
    if options.incremental:
        newcomers = Newcomers.of(ledger, recipe, options.limit, options.retry)
    progress = RunProgress(console)
    progress.planning()
    listing = list_documents(layout, recipe, discovery, options.limit, options.retry, newcomers)
    if not len(listing):
        return _nothing_new(ledger, lock, recipe, discovery, newcomers, started)
    watch = _watch(recipe, progress)
    with (
        _runner(recipe, options.runner, watch) as runner,
        watch.guard(progress.look),
        progress,
    ):
        note(layout, recipe)
        planned = plan_documents(layout, recipe, runner, listing, progress, newcomers)
        if planned.documents == 0:
            return _nothing_new(ledger, lock, recipe, discovery, newcomers, started)
        progress.pausing()
        done = done_set(ledger, recipe.provenance.fingerprint, options.retry)
        work = shard_work(layout, recipe, planned, done)
        layout.write_bytes(JOB, _job_yaml(recipe.job).encode())
        receipt = _read_pages(runner, work, progress, lock)
        conserve("pages to do and pages committed", work.pages, receipt.pages)
        lock.require()
        progress.assembling()
        assembly = _assemble(ledger, lock, recipe, planned)
    conserve("documents planned and written", planned.documents, sum(assembly.documents.values()))
    conserve("pages planned and written", planned.pages, sum(assembly.pages.values()))
    lock.require()
    forget_others(layout, recipe.provenance.fingerprint)
    forget(layout, keep=assembly.manifest.plans)
    table = publish(job, layout, assembly.manifest)
    summary = Summary(
        run_id=recipe.provenance.run_id,
        output=job.output.uri,
        documents=dict(assembly.documents),
        pages=dict(assembly.pages),
        failures=dict(assembly.failures),
        looks=dict(assembly.manifest.counts.looks),
        done=receipt,
        documents_known=planned.known,
        pages_reused=sum(assembly.pages.values()) - work.pages - work.pages_doubled,
        files_ignored=discovery.ignored,
        documents_carried=assembly.carried,
        table=table,
        listed={} if newcomers is None else newcomers.counts,
        wall_s=time.monotonic() - started,
        warnings=recipe.warnings,
        partitioned=bool(job.output.partition_by),
    )
    layout.write_bytes(_metrics_file(recipe), summary.to_json().encode())
    return summary


def _nothing_new(
    ledger: Ledger,
    lock: Lock,
    recipe: Recipe,
    discovery: Discovery,
    newcomers: Newcomers | None,
    started: float,
) -> Summary:
    """End an ingest that has nothing to take in; what a killed run left half done is ended, too."""
    layout = ledger.layout
    forget_run(layout, recipe.provenance.run_id)
    heal(ledger, lock.require)
    manifest = ledger.manifest()
    table = None if manifest is None else publish(recipe.job, layout, manifest, once=True)
    return Summary(
        run_id=None,
        output=layout.uri,
        documents={},
        pages={},
        failures={},
        looks={},
        done=sums([]),
        files_ignored=discovery.ignored,
        table=table,
        listed={} if newcomers is None else newcomers.counts,
        wall_s=time.monotonic() - started,
        warnings=recipe.warnings,
    )


def _assemble(ledger: Ledger, lock: Lock, recipe: Recipe, planned: Planned) -> Assembly:
    """Publish the tables, and with them what is known of documents that this run did not list."""
    layout, provenance = ledger.layout, recipe.provenance
    manifest = ledger.manifest()
    published = () if manifest is None else manifest.plans
    carried = carry(layout, provenance.run_id, provenance.fingerprint, planned.file, published)
    return assemble(
        ledger,
        read_plans(layout, planned.file),
        provenance,
        recipe.schema.document,
        Validator(recipe.schema.document).violation,
        plan_files=[planned.file, *carried],
        before_publishing=lock.require,
        partition_by=recipe.job.output.partition_by,
    )


def dry_run(job: Job, options: Options, console: Console) -> Planned:
    """List and plan a job's documents without touching its output or loading its model."""
    discovery = Discovery(job.input, Stores.of(job.stores))
    with tempfile.TemporaryDirectory(prefix="pagelake-") as folder:
        scratch = job.model_copy(update={"output": job.output.model_copy(update={"uri": folder})})
        recipe = prepare(scratch, _new_run_id())
        layout = Layout.open(folder)
        # Workers of a remote cluster could not read the folder.
        name = "local" if os.environ.get("RAY_ADDRESS") else options.runner
        progress = RunProgress(console)
        watch = _watch(recipe, progress)
        progress.planning()
        listing = list_documents(layout, recipe, discovery, options.limit, None)
        with _runner(recipe, name, watch) as runner, watch.guard(progress.look), progress:
            planned = plan_documents(layout, recipe, runner, listing, progress)
        return replace(planned, ignored=discovery.ignored)


def _new_run_id() -> str:
    """Sortable by time, to the second; the random part keeps two runs of one second apart."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _watch(recipe: Recipe, progress: RunProgress) -> Watch:
    """Return the driver's watch. In a local run the driver itself may be at an item that hangs."""
    limits = recipe.job.limits

    def end_run(item: Item) -> None:
        progress.last_words(
            f"{item.label} did not end in {item.allowed_s:g} s in stage {item.stage} (attempt "
            f"{item.attempt} of {limits.attempts}): ended; run again to go on"
        )
        os._exit(1)

    return Watch(notes_of(recipe), limits, end_run)


def _runner(recipe: Recipe, name: Literal["ray", "local"], watch: Watch) -> Runner:
    if name == "local":
        from pipeline.runners.local import LocalRunner

        return LocalRunner(recipe, watch)
    from pipeline.runners.ray_data import RayRunner

    return RayRunner(recipe)


def _job_yaml(job: Job) -> str:
    settings = job.model_dump(mode="json", by_alias=True)
    return f"# written by pagelake {__version__}\n" + yaml.safe_dump(settings, sort_keys=False)


def _metrics_file(recipe: Recipe) -> str:
    return f"_pagelake/runs/{recipe.provenance.run_id}/metrics.json"


def _read_pages(runner: Runner, work: Work, progress: RunProgress, lock: Lock) -> Receipt:
    if work.pages == 0:
        return sums([])
    progress.starting(work.documents, work.pages)
    runner.starting(work.documents, work.pages)

    def followed() -> Iterator[Receipt]:
        for receipt in runner.pages(work.file):
            if lock.lost:
                lock.require()  # raises: whoever has it now does these pages too
            progress.committed(receipt)
            yield receipt

    return sums(followed())
