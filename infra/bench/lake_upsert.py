"""Seconds and memory of bringing documents into lake tables, beside pyiceberg's own upsert.

    python infra/bench/lake_upsert.py --rows 1000000 --rival-rows 1000

Rows of about 1 kB in memory are made in a temporary folder (TMPDIR), and each case runs in a
process of its own: a first load, the same again, one row in a hundred changed, one in ten. The
rival is `Table.upsert` of pyiceberg on (uri, schema_id), with one row in a hundred changed, at a
size that it can bear. Prints one JSON object a case.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import deltalake  # noqa: F401  # imports are no part of what is measured
import pyarrow.dataset as ds
import pyiceberg.catalog.sql
import pyiceberg.io.pyarrow  # noqa: F401

sys.path.append(str(Path(__file__).parents[1] / "proofs"))
from lake_piles import SCHEMA, make_documents

from pipeline.lake.delta import DeltaLakeTable
from pipeline.lake.iceberg import IcebergTable, embedded_catalog
from pipeline.lake.layout import Layout
from pipeline.lake.stores import Stores
from pipeline.lake.upsert import Documents, upsert

CASES = {
    "first load": lambda _: 0,
    "nothing changed": lambda _: 0,
    "1 in 100 changed": lambda number: int(number % 100 == 0),
    "1 in 10 changed": lambda number: 2 * int(number % 10 == 0),
}
_FILES = dict(zip(CASES, ("version-0", "version-0", "version-1", "version-2"), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rival-rows", type=int, default=1000)
    parser.add_argument("--case", nargs=3, metavar=("FOLDER", "WAY", "CASE"))
    options = parser.parse_args()
    if options.case:
        print(json.dumps(_case(*options.case)), flush=True)
        os._exit(0)  # nothing of the interpreter's end is of interest
    with tempfile.TemporaryDirectory(prefix="pagelake-lake-") as name:
        folder = Path(name)
        for n_rows, ways in (
            (options.rows, ("iceberg", "delta")),
            (options.rival_rows, ("iceberg", "delta", "pyiceberg upsert")),
        ):
            root = folder / str(n_rows)
            for case, version in CASES.items():
                if not (root / "out" / "documents").exists() or case.startswith("1"):
                    make_documents(Layout.open(str(root / "out")), _FILES[case], n_rows, version)
            for way in ways:
                for case in CASES:
                    command = [sys.executable, __file__, "--case", str(root), way, case]
                    subprocess.run(command, check=way in ("iceberg", "delta"))  # the rival may die


def _case(folder: str, way: str, case: str) -> dict[str, Any]:
    root = Path(folder)
    layout = Layout.open(str(root / "out"))
    files = [name for name in layout.list("documents") if f"/{_FILES[case]}-" in name]
    started = time.monotonic(), time.process_time()
    counts = _rival(layout, files, root) if way == "pyiceberg upsert" else _ours(layout, files, way)
    return {
        "rows": int(root.name),
        "way": way,
        "case": case,
        "seconds": round(time.monotonic() - started[0], 1),
        "cpu_s": round(time.process_time() - started[1], 1),
        "peak_mib": _peak_kib() // 1024,
        **counts,
    }


def _peak_kib() -> int:
    """Return this process's own peak; `ru_maxrss` begins at its parent's."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def _ours(layout: Layout, files: list[str], way: str) -> dict[str, int]:
    root = Path(layout.root).parent
    table = (
        DeltaLakeTable(str(root / "delta"), Stores())
        if way == "delta"
        else IcebergTable(embedded_catalog(root / "iceberg"), "lake.documents")
    )
    done = upsert(table, Documents.of(layout, files, SCHEMA), lambda _: {})
    return {"inserted": done.inserted, "replaced": done.replaced}


def _rival(layout: Layout, files: list[str], root: Path) -> dict[str, int]:
    catalog = embedded_catalog(root / "rival")
    catalog.create_namespace_if_not_exists("lake")
    rows = ds.dataset([f"{layout.root}/{name}" for name in files]).to_table()
    rows = rows.select([name for name in rows.column_names if name != "source"])
    table = catalog.create_table_if_not_exists("lake.documents", schema=rows.schema)
    if not files[0].startswith("documents/version-0") or table.current_snapshot() is not None:
        done = table.upsert(rows, join_cols=["uri", "schema_id"])
        return {"inserted": done.rows_inserted, "replaced": done.rows_updated}
    table.append(rows)
    return {"inserted": rows.num_rows, "replaced": 0}


if __name__ == "__main__":
    main()
