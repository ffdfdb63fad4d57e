"""What it takes to go on with a run of ten million finished documents: seconds and memory.

    python infra/proofs/resume_memory.py --documents 10000000

Writes the output that a run of single-page documents leaves, files of pages and a plan file with
the schemas that runs write (random ids and listing keys, other columns constant), about 1 GB for
ten million. Then a fresh process loads what a resumed run loads before it draws a page: the
finished pages (`done_set`), and the plans that earlier runs made (`Known`); and looks a million up
in each. Exits 1 if loading takes more than 60 s or any of it more than 2 GB. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline.lake.done import done_set
from pipeline.lake.keys import KEY, Keys
from pipeline.lake.known import Known, known_schema, with_keys
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Commit, Ledger
from pipeline.lake.parquet import write_table
from pipeline.lake.plans import PLANS, ROWS_PER_GROUP, row_writer, run_file
from pipeline.lake.tables import pages_schema

_FINGERPRINT, _RUN = "f" * 16, "20260101T000000Z-000000"
_SECONDS, _PEAK_MB = 60, 2_000
_ONE_IN = 100
"""A page in so many has failed, and is not done."""


@dataclass(frozen=True)
class MadeUp:
    """`n_documents` of one page each: the same ones whenever they are asked for."""

    n_documents: int
    n_files: int
    seed: int

    def __iter__(self) -> Iterator[tuple[int, pa.StringArray, Keys]]:
        """Yield, a file of pages each, its first row, document ids and listing keys."""
        random = np.random.default_rng(self.seed)
        rows = -(-self.n_documents // self.n_files)
        for start in range(0, self.n_documents, rows):
            size = min(rows, self.n_documents - start)
            digits = random.bytes(32 * size).hex().encode()
            ends = np.arange(0, 64 * size + 1, 64, dtype=np.int32)
            ids = pa.StringArray.from_buffers(size, pa.py_buffer(ends), pa.py_buffer(digits))
            yield start, ids, np.frombuffer(random.bytes(16 * size), KEY)

    def write(self, layout: Layout) -> None:
        """Write pages, their commits, and the plans."""
        layout.prepare()
        with row_writer(layout, run_file(_RUN, "plans"), known_schema(_FINGERPRINT)) as write:
            for start, ids, keys in self:
                write(with_keys(_plan_rows(start, ids), keys))
                _commit(layout, start, _page_rows(start, ids))


def _plan_rows(start: int, ids: pa.Array) -> pa.Table:
    size = len(ids)
    return _table(
        PLANS,
        size,
        uri=pa.array([f"s3://bucket/scans/2025/{n:010}.pdf" for n in range(start, start + size)]),
        size=pa.array(np.arange(size) + 50_000),
        modified="1735689600000000000",
        media_type="application/pdf",
        source=pa.array([[]] * size, PLANS.field("source").type),
        document_id=ids,
        n_pages=1,
        page_numbers=_ones(size),
    )


def _page_rows(start: int, ids: pa.Array) -> pa.Table:
    size = len(ids)
    failed = (np.arange(start, start + size) % _ONE_IN) == 0
    schema = pages_schema(pa.struct([("total", pa.int64())]))
    return _table(
        schema,
        size,
        document_id=ids,
        uri="s3://bucket/scans/2025/1.pdf",
        n_pages=1,
        state=_either(failed, "failed", "ok"),
        failure_kind=_either(failed, "render_timeout", None),
        record_json='{"total": 1}',
        run_id=_RUN,
        fingerprint=_FINGERPRINT,
        page_numbers=_ones(size),
        raw_text='{"total": 1}',
    )


def _table(schema: pa.Schema, n_rows: int, **columns: Any) -> pa.Table:
    def column(field: pa.Field) -> pa.Array:
        value = columns.get(field.name)
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return value
        return pa.repeat(pa.scalar(value, field.type), n_rows)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _ones(size: int) -> pa.Array:
    ends = np.arange(size + 1, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.ones(size, np.int32)))


def _either(mask: np.ndarray, yes: str | None, no: str | None) -> pa.Array:
    both = pa.array([no, yes], pa.string())
    return both.take(pa.array(mask.astype(np.int8)))


def _commit(layout: Layout, number: int, table: pa.Table) -> None:
    name, rows = f"{_RUN}-{number:09}", table.num_rows
    write_table(layout, f"pages/{name}.parquet", table)
    now = datetime.now(UTC)
    commit = Commit(_RUN, _FINGERPRINT, name, f"pages/{name}.parquet", rows, {"ok": rows}, {}, now)
    Ledger(layout).commit(commit)


@dataclass
class Stopwatch:
    """Wall and processor seconds of a block; they differ on a machine that has other work."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __enter__(self) -> Self:
        self.wall_s -= time.perf_counter()
        self.cpu_s -= time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()


def measure_done_set(layout: Layout, made_up: MadeUp, lookups: int) -> dict[str, Any]:
    """Load the finished pages, and look pages up, a thousand at a time."""
    with Stopwatch() as load:
        done = done_set(Ledger(layout), _FINGERPRINT)
    assert len(done) == made_up.n_documents - -(-made_up.n_documents // _ONE_IN)
    lookups_s, looked_up = 0.0, 0
    for start, ids, _ in made_up:
        for first in range(0, min(len(ids), lookups - looked_up), ROWS_PER_GROUP):
            some = ids[first : first + ROWS_PER_GROUP]
            began = time.perf_counter()
            missing = done.missing(some, _ones(len(some)))
            lookups_s += time.perf_counter() - began
            numbers = np.arange(start + first, start + first + len(some))
            assert (missing == (numbers % _ONE_IN == 0)).all()
            looked_up += len(some)
    return _row("done_set", len(done), load, looked_up, lookups_s)


def measure_known(layout: Layout, made_up: MadeUp, lookups: int) -> dict[str, Any]:
    """Index the plans, and take some over, a thousand at a time and in order, as a listing does."""
    with Stopwatch() as load:
        known = Known(layout, _FINGERPRINT)
    with known:
        assert len(known) == made_up.n_documents
        lookups_s, looked_up = 0.0, 0
        for start, ids, keys in made_up:
            documents = _plan_rows(start, ids)
            for first in range(0, min(len(ids), lookups - looked_up), ROWS_PER_GROUP):
                some = slice(first, first + ROWS_PER_GROUP)
                began = time.perf_counter()
                rows = known.find(documents.slice(first, ROWS_PER_GROUP), keys[some])
                found = known.found_out(rows)
                lookups_s += time.perf_counter() - began
                assert found["document_id"].to_pylist() == ids[some].to_pylist()
                looked_up += len(rows)
        return _row("known plans", len(known), load, looked_up, lookups_s)


def _row(
    what: str, members: int, load: Stopwatch, lookups: int, lookups_s: float
) -> dict[str, Any]:
    return {
        "what": what,
        "members": members,
        "load_s": round(load.wall_s, 1),
        "load_cpu_s": round(load.cpu_s, 1),
        "lookups": lookups,
        "lookups_s": round(lookups_s, 1),
        "peak_mb": round(_peak_bytes() / 1e6),
    }


def _peak_bytes() -> int:
    """Return the most that this process has held, shared libraries included (VmHWM)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


MEASURES = {"done_set": measure_done_set, "known": measure_known}


def _in_a_fresh_process(name: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--output", folder]
    for option in ("documents", "files", "seed", "lookups"):
        command += [f"--{option}", str(getattr(options, option))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _table_of(found: list[dict[str, Any]]) -> str:
    lines = [
        f"{'':14}{'members':>14}{'load s':>9}{'cpu s':>8}{'lookups':>12}{'s':>7}{'peak MB':>10}"
    ]
    lines += [
        f"{one['what']:14}{one['members']:>14,}{one['load_s']:>9.1f}{one['load_cpu_s']:>8.1f}{one['lookups']:>12,}"
        f"{one['lookups_s']:>7.1f}{one['peak_mb']:>10,}"
        for one in found
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=150)
    parser.add_argument("--lookups", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=sorted(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    options = parser.parse_args()
    made_up = MadeUp(options.documents, options.files, options.seed)
    if options.measure:
        layout = Layout.open(options.output)
        print(json.dumps(MEASURES[options.measure](layout, made_up, options.lookups)))
        return
    with tempfile.TemporaryDirectory(prefix="pagelake-proof-") as folder:
        made_up.write(Layout.open(folder))
        found = [_in_a_fresh_process(name, folder, options) for name in MEASURES]
    load_s = sum(one["load_s"] for one in found)
    good = load_s <= _SECONDS and all(one["peak_mb"] <= _PEAK_MB for one in found)
    if options.json:
        print(json.dumps({"measured": found, "load_s": round(load_s, 1), "within_limits": good}))
    else:
        print(_table_of(found))
        print(
            f"loading took {load_s:.1f} s in all: {'within' if good else 'over'} the limits of "
            f"{_SECONDS} s and {_PEAK_MB:,} MB"
        )
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
