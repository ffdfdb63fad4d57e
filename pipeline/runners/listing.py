"""Listing a run's documents: those that earlier runs planned, and those that are to be planned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.lake.known import Known, known_schema, version_keys, with_keys
from pipeline.lake.layout import Layout
from pipeline.lake.partitions import check_manifest
from pipeline.lake.plans import (
    DOCUMENTS_LISTED,
    PLANS,
    chunks,
    documents_table,
    failure_row,
    row_writer,
    run_file,
)
from pipeline.records import FailureKind
from pipeline.runners.newcomers import Newcomers
from pipeline.runners.recipe import Recipe
from pipeline.selection import parse_pages
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import select_pages


@dataclass(frozen=True, slots=True)
class Listing:
    """What was listed: `known` has, a document, whether its plan is in `known_file` already; it is
    in `new_file` if not. Both are in the order listed."""

    new_file: str
    known_file: str
    known: NDArray[np.bool_]
    total_bytes: int

    def __len__(self) -> int:
        return len(self.known)


def list_documents(
    layout: Layout,
    recipe: Recipe,
    discovery: Discovery,
    limit: int | None,
    retry: frozenset[FailureKind] | None,
    newcomers: Newcomers | None = None,
) -> Listing:
    """List documents, and take over what earlier runs know of them.

    All of them, `limit` at most, or those that `newcomers` picks. `retry` says which documents
    that could not be opened are tried again, see `pipeline.lake.known.Known`.

    Raises
    ------
    InputError
        If there is no document at all, and nobody picks.
    JobError
        If documents are partitioned by a column that the manifest does not have.
    """
    check_manifest(recipe.job.output.partition_by, discovery.columns)
    documents = discovery if newcomers is not None else islice(discovery, limit)
    run_id, fingerprint = recipe.provenance.run_id, recipe.provenance.fingerprint
    new_file, known_file = run_file(run_id, "documents"), run_file(run_id, "listed")
    seen, total_bytes = bytearray(), 0
    with (
        Known(layout, fingerprint, retry) as known,
        row_writer(layout, new_file, DOCUMENTS_LISTED) as write_new,
        row_writer(layout, known_file, known_schema(fingerprint)) as write_known,
    ):
        renewed = _Renewal(recipe)
        for some in chunks(documents):
            table = documents_table(some)
            keys = version_keys(table)
            if newcomers is not None:
                picked = newcomers.pick(table, keys)
                table, keys = table.filter(pa.array(picked)), keys[picked]
            total_bytes += pc.sum(pc.max_element_wise(table["size"], 0)).as_py() or 0
            rows = known.find(table, keys)
            is_known = rows >= 0
            seen += is_known.tobytes()
            write_new(table.filter(pa.array(~is_known)))
            plans = renewed.plans(table.filter(pa.array(is_known)), known.found_out(rows[is_known]))
            write_known(with_keys(plans, keys[is_known]))
    if not seen and newcomers is None:
        where = ", ".join(recipe.job.input.paths) or recipe.job.input.manifest
        raise InputError(
            f"input: no documents in {where} ({discovery.ignored} files of other types); "
            "pagelake reads PDF, PNG, JPEG, WebP and TIFF"
        )
    return Listing(new_file, known_file, np.frombuffer(seen, np.bool_), total_bytes)


class _Renewal:
    """Plans made of what is known of documents: which pages to read is settled by the job."""

    def __init__(self, recipe: Recipe) -> None:
        settings = recipe.job.input
        selection = None if settings.pages is None else parse_pages(settings.pages)

        @lru_cache
        def select(n_pages: int) -> tuple[tuple[int, ...], dict[str, object] | None]:
            pages, failure = select_pages(n_pages, selection, settings.max_pages)
            return pages, failure_row(failure)

        self._select = select

    def plans(self, documents: pa.Table, found_out: pa.Table) -> pa.Table:
        """Return rows of `PLANS`: the documents as listed now, with what was found out before."""
        chosen = [
            ((), failure) if n_pages is None else self._select(n_pages)
            for n_pages, failure in zip(
                found_out["n_pages"].to_pylist(), found_out["failure"].to_pylist(), strict=True
            )
        ]
        columns = {
            **{name: documents[name] for name in documents.column_names},
            "document_id": found_out["document_id"],
            "n_pages": found_out["n_pages"],
            "page_numbers": [pages for pages, _ in chosen],
            "failure": [failure for _, failure in chosen],
        }
        return pa.table(columns, schema=PLANS)
