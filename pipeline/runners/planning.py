"""Planning a run: which documents and pages there are, and which of them are still to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import ConservationError
from pipeline.lake.done import DoneSet
from pipeline.lake.keys import as_array, column_keys, newest
from pipeline.lake.known import KNOWN, known_schema, with_keys
from pipeline.lake.layout import Layout
from pipeline.lake.partitions import Folders, sources
from pipeline.lake.plans import (
    PLANS,
    ROWS_PER_GROUP,
    chunks,
    plans_of,
    plans_table,
    read_rows,
    read_slice,
    row_writer,
    run_file,
    shards_table,
    write_rows,
)
from pipeline.records import Plan, Shard
from pipeline.runners.listing import Listing
from pipeline.runners.newcomers import Newcomers
from pipeline.runners.progress import RunProgress
from pipeline.runners.recipe import Recipe
from pipeline.runners.runner import Runner
from pipeline.stages.plan import shards
from pipeline.terminal import counted


@dataclass(frozen=True, slots=True)
class Planned:
    """What planning came to. `file` has the plans; `known` counts the documents that earlier runs
    planned and that were not read again; `total_bytes` is the documents' size."""

    file: str
    documents: int
    known: int
    pages: int
    failures: Mapping[str, int]
    total_bytes: int
    ignored: int = 0

    def to_json(self) -> str:
        """Return the plan's figures as one JSON object."""
        return json.dumps({k: v for k, v in asdict(self).items() if k not in ("file", "known")})

    def text(self) -> str:
        """Return the plan's figures for people."""
        lines = [
            f"{counted(self.documents, 'document')}, {counted(self.pages, 'page')}, "
            f"{self.total_bytes / 1e6:,.1f} MB"
        ]
        lines += [f"{count:,} will fail: {kind}" for kind, count in sorted(self.failures.items())]
        if self.ignored:
            lines.append(f"{counted(self.ignored, 'file')} of other types ignored")
        return "\n".join(lines)


def plan_documents(
    layout: Layout,
    recipe: Recipe,
    runner: Runner,
    listing: Listing,
    progress: RunProgress,
    newcomers: Newcomers | None = None,
) -> Planned:
    """Plan the documents of a listing that no earlier run has planned.

    The plans of all are streamed into one file, in the order listed; those are left out of which
    `newcomers` says, now that they have been read, that they are not new.
    """
    listed = documents = pages = 0
    ahead = pages_ahead = 0  # planned, and not in the file yet
    failures: Counter[str] = Counter()
    folders = Folders(sources(recipe.job.output.partition_by))

    def followed(plans: Iterator[Plan]) -> Iterator[Plan]:
        nonlocal ahead, pages_ahead
        for plan in plans:
            ahead += 1
            pages_ahead += len(plan.page_numbers)
            progress.planned(documents + ahead, pages + pages_ahead)
            yield plan

    n_known = int(np.count_nonzero(listing.known))
    new = runner.plan(listing.new_file) if n_known < len(listing) else iter(())
    file = run_file(recipe.provenance.run_id, "plans")
    with row_writer(layout, file, known_schema(recipe.provenance.fingerprint)) as write:
        for table in _in_order(layout, listing, followed(new)):
            listed += table.num_rows
            if newcomers is not None:
                table = table.filter(pa.array(newcomers.admit(table)))
            folders.of(table)  # raises before any page is read if these are too many
            documents += table.num_rows
            pages += pc.sum(pc.list_value_length(table["page_numbers"])).as_py() or 0
            kinds = pc.struct_field(table["failure"].combine_chunks(), "kind")
            failures.update(kinds.drop_null().to_pylist())
            ahead = pages_ahead = 0
            progress.planned(documents, pages)
            write(table)
    conserve("documents listed and planned", len(listing), listed)
    for paper in (listing.new_file, listing.known_file):
        layout.delete(paper)
    return Planned(file, documents, n_known, pages, dict(failures), listing.total_bytes)


def _in_order(layout: Layout, listing: Listing, new: Iterator[Plan]) -> Iterator[pa.Table]:
    """Bring known and new plans into one stream in the order listed, as rows of `KNOWN`."""
    taken = 0
    for start in range(0, len(listing.known), ROWS_PER_GROUP):
        is_known = listing.known[start : start + ROWS_PER_GROUP]
        n_known = int(np.count_nonzero(is_known))
        n_new = len(is_known) - n_known
        tables = []
        if n_known:
            tables.append(read_slice(layout, listing.known_file, taken, taken + n_known))
            taken += n_known
        if n_new:
            plans = list(islice(new, n_new))
            conserve("documents to plan and plans made", n_new, len(plans))
            tables.append(with_keys(plans_table(plans)))
        places = np.argsort(np.concatenate([np.flatnonzero(is_known), np.flatnonzero(~is_known)]))
        yield pa.concat_tables([table.cast(KNOWN) for table in tables]).take(places)
    conserve("documents to plan and plans made", 0, sum(1 for _ in new))


def read_plans(layout: Layout, file: str) -> Iterator[Plan]:
    """Stream the plans of a run back."""
    for table in read_rows(layout, file, PLANS.names):
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
    job = recipe.job
    pages_per_sample = job.pages_per_sample if job.unit == "document" else None
    is_first = _first_of_content(layout, planned.file)

    def remaining() -> Iterator[tuple[Plan, tuple[int, ...]]]:
        nonlocal documents, doubled
        start = 0
        for table in read_rows(layout, planned.file, PLANS.names):
            first = is_first[start : start + table.num_rows]
            start += table.num_rows
            counts = pc.list_value_length(table["page_numbers"]).to_numpy()
            doubled += int(counts[~first].sum())
            for batch in table.filter(pa.array(first)).to_batches():
                for plan, todo in _unfinished(batch, done):
                    documents += 1
                    yield plan, todo

    def followed() -> Iterator[Shard]:
        nonlocal pages
        for shard in shards(remaining(), pages_per_sample):
            pages += shard.n_pages
            yield shard

    tables = (shards_table(some) for some in chunks(followed()))
    file = write_rows(layout, recipe.provenance.run_id, "shards", tables)
    return Work(file, documents, pages, doubled)


def _unfinished(plans: pa.RecordBatch, done: DoneSet) -> Iterator[tuple[Plan, tuple[int, ...]]]:
    """Yield the plans that have pages to do, with those; no others are made into objects."""
    page_numbers = plans["page_numbers"]
    missing = done.missing(plans["document_id"], page_numbers)
    row_of_page = np.repeat(np.arange(plans.num_rows), page_numbers.value_lengths().to_numpy())
    rows, starts = np.unique(row_of_page[missing], return_index=True)
    todo = np.split(page_numbers.flatten().to_numpy()[missing], starts)[1:]
    found = plans_of(pa.Table.from_batches([plans.take(pa.array(rows))]))
    for plan, numbers in zip(found, todo, strict=True):
        yield plan, tuple(numbers.tolist())


def _first_of_content(layout: Layout, plan_file: str) -> NDArray[np.bool_]:
    """Return, a plan each, whether it is the first to open its content: 16 bytes a document."""
    keys, opened = [as_array([])], [np.zeros(0, np.bool_)]
    for table in read_rows(layout, plan_file, ["document_id", "failure"]):
        opened.append(table["failure"].is_null().to_numpy())
        ids = table["document_id"].filter(pa.array(opened[-1]))
        keys.append(column_keys(ids.combine_chunks()))
    first = np.concatenate(opened)
    first[first] = newest(np.concatenate(keys)[::-1])[::-1]
    return first


def conserve(what: str, expected: int, found: int) -> None:
    """Law 1: every document and page ends in exactly one row with exactly one state."""
    if expected != found:
        raise ConservationError(f"{what} differ: {expected} and {found}")
