"""Plans joined with the committed rows of their pages; the join is where law 1 is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from pipeline.errors import ConservationError
from pipeline.lake.buckets import Buckets, bucket_count
from pipeline.lake.keys import KeySet, as_array, column_keys
from pipeline.lake.layout import Layout
from pipeline.lake.page_rows import PAGE_ROWS, PageRows, page_tables
from pipeline.lake.parquet import count_rows
from pipeline.lake.plans import PLANS, plans_of, plans_table
from pipeline.records import PageResult, Plan

Planned = tuple[Plan, list[PageResult]]

_PLANS_AT_ONCE = 1000
_NAMED = 5


def planned_pages(
    layout: Layout, plans: Iterable[Plan], page_files: Sequence[str], run_id: str, folder: Path
) -> Iterator[Planned]:
    """Yield every plan with the newest rows of its pages, in page order.

    Plans that failed come first, with no pages; the others come in an order that the plans set.
    `page_files` are of one fingerprint, oldest first. Plans, and the rows of their documents, are
    spilled to `folder`, a local one; memory holds one bucket and 16 bytes a document. Rows of
    earlier runs that no plan asks for are left out, and those of other documents are not read.

    Raises
    ------
    ConservationError
        If a planned page has no row or is in several, or a row of `run_id` was not planned.
    """
    n_buckets = bucket_count(count_rows(layout, page_files))
    plan_buckets = Buckets(folder / "plans", PLANS, n_buckets)
    page_buckets = Buckets(folder / "pages", PAGE_ROWS, n_buckets)
    ids = [as_array([])]
    with plan_buckets, page_buckets:
        remaining = iter(plans)
        while batch := list(islice(remaining, _PLANS_AT_ONCE)):
            yield from ((plan, []) for plan in batch if plan.failure is not None)
            table = plans_table([plan for plan in batch if plan.failure is None])
            ids.append(column_keys(table["document_id"].combine_chunks()))
            plan_buckets.write(table)
        wanted = KeySet(np.concatenate(ids))
        for name in page_files:
            for table in page_tables(layout, name, wanted, run_id):
                page_buckets.write(table)
    for plan_rows, page_rows in zip(plan_buckets, page_buckets, strict=True):
        yield from _join(plans_of(plan_rows), PageRows(page_rows), run_id)


def _join(plans: Sequence[Plan], rows: PageRows, run_id: str) -> Iterator[Planned]:
    planned: dict[str, set[int]] = {}
    missing: list[str] = []
    doubled: list[str] = []
    chosen: list[list[tuple[int, ...]]] = []
    for plan in plans:
        document_id, wanted = str(plan.document_id), set(plan.page_numbers)
        planned.setdefault(document_id, set()).update(wanted)
        chosen.append([n for n in rows.page_numbers(document_id) if wanted.issuperset(n)])
        covered = Counter(chain.from_iterable(chosen[-1]))
        missing += [_name(plan, page) for page in plan.page_numbers if page not in covered]
        doubled += [_name(plan, page) for page, times in covered.items() if times > 1]
    stray = [
        f"document {document_id} page {numbers[0]}"
        for document_id in rows.documents()
        for numbers in rows.page_numbers(document_id, run_id)
        if not planned.get(document_id, set()).issuperset(numbers)
    ]
    _require_none(missing, "planned and have no row")
    _require_none(doubled, "in more than one row")
    _require_none(stray, "in rows of this run and were not planned")
    for plan, page_numbers in zip(plans, chosen, strict=True):
        yield plan, [rows.result(str(plan.document_id), numbers) for numbers in page_numbers]


def _name(plan: Plan, page: int) -> str:
    return f"{plan.document.uri} page {page}"


def _require_none(found: Sequence[str], complaint: str) -> None:
    if found:
        more = ", ..." if len(found) > _NAMED else ""
        raise ConservationError(
            f"{len(found)} pages are {complaint}: {', '.join(found[:_NAMED])}{more}"
        )
