"""Tables of Iceberg and Delta Lake read whole whatever happens to who writes them.

    python infra/proofs/lake_tables.py --moments 10

For each format: the same documents twice make no second snapshot, and changed ones take the place
of their rows. Then a process that upserts a few thousand rows in a loop is killed with `kill -9` at
random moments, and so are whole runs, once their output is finished. After each kill the table must
read as before or after a commit, row for row, and the next upsert or run must bring it up to date.
Linux only; exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake.exceptions import TableNotFoundError
from lake_piles import SCHEMA, digest_of, make_documents, uri_of
from pyiceberg.exceptions import NoSuchTableError
from sqlalchemy.exc import OperationalError

from pipeline.lake.delta import DeltaLakeTable
from pipeline.lake.iceberg import IcebergTable, embedded_catalog
from pipeline.lake.lake_table import LakeTable
from pipeline.lake.layout import Layout
from pipeline.lake.stores import Stores
from pipeline.lake.upsert import Documents, Upserted, upsert

FORMATS = ("iceberg", "delta")
_DOCUMENTS = Path(__file__).parents[2] / "jobs" / "demo" / "documents"
_JOB = """\
input: {{paths: [{pile}]}}
task: ocr
name: docs
model: {{family: fake, name: "fake?edge={edge}"}}
output: {{uri: {output}, format: {format}, table: {table}}}
"""


def open_table(format_: str, folder: Path) -> LakeTable:
    """Open a table of a format in a folder."""
    if format_ == "delta":
        return DeltaLakeTable(str(folder / "delta"), Stores())
    return IcebergTable(embedded_catalog(folder / "iceberg"), "lake.docs")


def data_files(format_: str, folder: Path) -> list[str]:
    """Return the paths of a table's data files, as the format's own library lists them."""
    if format_ == "delta":
        from deltalake import DeltaTable

        return sorted(DeltaTable(str(folder / "delta")).file_uris())
    with embedded_catalog(folder / "iceberg") as catalog:
        tasks = catalog.load_table("lake.docs").scan().plan_files()
        return sorted(task.file.file_path for task in tasks)


def descriptions(format_: str, folder: Path) -> dict[str, str]:
    """Return what a table says of its columns."""
    if format_ == "delta":
        from deltalake import DeltaTable

        fields = DeltaTable(str(folder / "delta")).schema().fields
        return {field.name: field.metadata.get("comment", "") for field in fields}
    with embedded_catalog(folder / "iceberg") as catalog:
        return {
            field.name: field.doc or "" for field in catalog.load_table("lake.docs").schema().fields
        }


def version(state: int, number: int) -> int:
    """Return the version of a document in a state: in each, other ones are changed."""
    return state if number % 7 == state % 7 else 0


def prepare(folder: Path, rounds: int, n_rows: int) -> None:
    """Write the documents of each state of an output: changed ones, and ten more than before."""
    layout = Layout.open(str(folder / "out"))
    for state in range(rounds):
        make_documents(layout, f"{state}", n_rows + 10 * state, lambda n, s=state: version(s, n))


def documents(folder: Path, state: int) -> Documents:
    """Return the documents of a state."""
    layout = Layout.open(str(folder / "out"))
    files = [name for name in layout.list("documents") if name.startswith(f"documents/{state}-")]
    return Documents.of(layout, files, SCHEMA)


def state_of(format_: str, folder: Path) -> int:
    """Return the state that a table reads as, row for row; -1 if it is none."""
    rows = ds.dataset(data_files(format_, folder)).to_table(columns=["uri", "row_digest"])
    found = sorted(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    expected = Layout.open(str(folder / "out")).list("documents")
    for state in sorted({int(Path(name).name.split("-")[0]) for name in expected}):
        if _reads_as(found, documents(folder, state), state):
            return state
    return -1


def _reads_as(found: list[tuple[str, str]], wanted: Documents, state: int) -> bool:
    numbers = range(len(wanted.digests))
    return found == [(uri_of(n), digest_of(n, version(state, n))) for n in numbers]


def bring(format_: str, folder: Path, state: int) -> Upserted:
    """Bring a table to a state."""
    table = open_table(format_, folder)
    try:
        return upsert(table, documents(folder, state), lambda _: {"pagelake.state": str(state)})
    finally:
        table.close()


def _child(format_: str, folder: Path) -> None:
    """Upsert state after state for ever, beginning where the table is, and print each when done."""
    n_states = len(list((folder / "out" / "documents").iterdir()))
    state = int((folder / "state").read_text()) if (folder / "state").exists() else 0
    while True:
        for one in format_.split("+"):
            bring(one, folder, state % n_states)
        print(state % n_states, flush=True)
        state += 1


def _prove_twice(format_: str, folder: Path) -> bool:
    first, again = bring(format_, folder, 0), bring(format_, folder, 0)
    changed = bring(format_, folder, 1)
    fine = not again.committed and again.snapshot == first.snapshot
    fine &= changed.inserted == 10 and changed.replaced > 0 and state_of(format_, folder) == 1
    print(
        f"{format_:7}  twice: {again.unchanged} unchanged, no new snapshot; then "
        f"{changed.replaced} replaced, {changed.inserted} inserted"
    )
    return bool(fine)


def _prove_kills(format_: str, folder: Path, moments: int, seed: int) -> bool:
    """Kill an upserting process; states only grow, so before and after are told apart."""
    chance, fine = random.Random(seed), True
    state = 1
    for moment in range(moments):
        (folder / "state").write_text(str(state + 1))
        command = [sys.executable, __file__, "--child", format_, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            done = int(process.stdout.readline())
            time.sleep(chance.uniform(0, 1.5))
            process.kill()
            done = max([done, *(int(line) for line in process.stdout)])
        found = state_of(format_, folder)
        bring(format_, folder, done + 2)
        state = state_of(format_, folder)
        right = found in (done, done + 1) and state == done + 2
        print(
            f"{format_:7}  kill {moment:2}: after state {done}, reads as {found}, then {state}"
            f"{'' if right else '  WRONG'}"
        )
        fine &= right
    return fine


def _prove_runs(format_: str, folder: Path, moments: int, seed: int) -> bool:
    """Kill whole runs between the finished output and their end."""
    chance, fine = random.Random(seed), True
    pile, output = folder / "pile", folder / "run"
    pile.mkdir()
    for path in sorted(_DOCUMENTS.glob("image-0*"))[:3]:
        shutil.copy(path, pile)
    table_s = 0.0
    for moment in range(moments + 1):
        table = folder / "delta" if format_ == "delta" else "lake.docs"
        settings = {"pile": pile, "output": output, "format": format_, "table": table}
        (folder / "job.yaml").write_text(_JOB.format(edge=56 + moment, **settings))
        command = [sys.executable, "-m", "pipeline.cli", "run", str(folder / "job.yaml")]
        command += ["--runner", "local", "--fresh"]
        before = _run_rows(format_, folder, output)
        process = _finishing(command, output)
        if moment == 0:  # how long the table takes
            started = time.monotonic()
            process.wait()
            table_s = time.monotonic() - started
            continue
        time.sleep(chance.uniform(0, table_s))
        process.kill()
        process.wait()
        killed = _run_rows(format_, folder, output)
        subprocess.run([*command[:-1]], stderr=subprocess.DEVNULL, check=False)
        after = _run_rows(format_, folder, output)
        wanted = _pairs(ds.dataset(sorted(str(one) for one in (output / "documents").glob("*"))))
        right = killed in (before, after) and after == wanted
        state = "before" if killed == before else "after" if killed == after else "NEITHER"
        print(
            f"{format_:7}  run {moment:2}: killed, reads as {state}; the next run made it whole"
            f"{'' if right else '  WRONG'}"
        )
        fine &= right
    return fine


def _finishing(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a run and return it when its output is finished."""
    before = _bytes(output)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and _bytes(output) == before:
        time.sleep(0.002)
    return process


def _bytes(output: Path) -> bytes:
    manifest = output / "_pagelake" / "manifest.json"
    return manifest.read_bytes() if manifest.exists() else b""


def _run_rows(format_: str, folder: Path, output: Path) -> list[tuple[str, str]]:
    """Return the rows of the table of a run; the embedded catalog lies in the output."""
    try:
        files = data_files(format_, folder if format_ == "delta" else output)
    except (NoSuchTableError, TableNotFoundError, OperationalError):
        files = []
    return _pairs(ds.dataset(files)) if files else []


def _pairs(dataset: ds.Dataset) -> list[tuple[str, str]]:
    rows: pa.Table = dataset.to_table(columns=["uri", "row_digest"])
    return sorted(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, metavar=("FORMAT+FORMAT", "FOLDER"))
    options = parser.parse_args()
    if options.child:
        _child(options.child[0], Path(options.child[1]))
    fine = True
    for format_ in options.formats:
        for proof in (_prove_kills, _prove_runs):
            with tempfile.TemporaryDirectory(prefix="pagelake-lake-") as name:
                folder = Path(name)
                if proof is _prove_kills:
                    prepare(folder, 12 * options.moments + 40, options.rows)
                    fine &= _prove_twice(format_, folder)
                fine &= proof(format_, folder, options.moments, options.seed)
    print("all as promised" if fine else "PROMISES BROKEN")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
