"""What listing a million documents takes: seconds to the first one, to all, and memory.

    python infra/proofs/listing.py --documents 1000000

An S3 endpoint of its own process lists made-up keys (`tests/stores/recording_s3.py`), and a fresh
process each lists them as a run does: a folder, a glob, both (so that each document must be known
again), a manifest whose rows are local files or missing ones, and manifests of objects: looked at
one by one, and trusted. Exits 1 if a first document takes more than 5 s, or memory grows by more
than 64 MB, or 128 MB where documents may be named twice. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.job import Input
from pipeline.lake.stores import Stores
from pipeline.stages.discover import Discovery
from pipeline.store_settings import Store

_SERVER = Path(__file__).parents[2] / "tests" / "stores" / "recording_s3.py"
_FIRST_S, _GROWTH_MB, _GROWTH_NAMED_TWICE_MB = 5, 64, 128
_LOOKED_AT = 20  # a manifest's objects are looked at one by one: so many times fewer of them
_FOLDER = "s3://bucket/scans"


def inputs(documents: int, folder: Path) -> dict[str, tuple[Input, int]]:
    """Return, by name, what to list and how many documents there are."""
    some = documents // _LOOKED_AT
    local, remote, trusted = (folder / f"{name}.parquet" for name in ("local", "some", "all"))
    (folder / "real.pdf").write_bytes(b"%PDF-1.4")
    _write(local, (_local_row(folder, n) for n in range(documents)))
    _write(remote, ({"uri": f"{_FOLDER}/{n:08}.pdf"} for n in range(some)))
    _write(trusted, (_told_row(n) for n in range(documents)))
    return {
        "folder": (Input(paths=(_FOLDER,)), documents),
        "folder/*.pdf": (Input(paths=(f"{_FOLDER}/*.pdf",)), documents),
        "both": (Input(paths=(_FOLDER, f"{_FOLDER}/*.pdf")), documents),
        "manifest, local": (Input(manifest=str(local)), documents),
        "manifest, looked at": (Input(manifest=str(remote)), some),
        "manifest, trusted": (Input(manifest=str(trusted), trust_manifest=True), documents),
    }


def _local_row(folder: Path, number: int) -> dict[str, str]:
    """A file that is not there, but for one in a thousand: a link to one that is."""
    path = folder / f"{number:08}.pdf"
    if number % 1000 == 0:
        os.link(folder / "real.pdf", path)
    return {"uri": str(path)}


def _told_row(number: int) -> dict[str, str]:
    return {"uri": f"{_FOLDER}/{number:08}.pdf", "size": "8", "modified": "2026-01-02T03:04:05Z"}


def _write(file: Path, rows: Iterator[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def measure(name: str, endpoint: str, folder: Path) -> dict[str, Any]:
    """List in this process."""
    what, expected = json.loads((folder / "inputs.json").read_text())[name]
    stores = Stores.of({"s3://": Store(endpoint=endpoint, anonymous=True)})
    before, began = _peak_mb(), time.perf_counter()
    found = Discovery(Input.model_validate(what), stores)
    next(found)
    first_s = time.perf_counter() - began
    count = 1 + sum(1 for _ in found)
    assert count == expected, (count, expected)
    return {
        "what": name,
        "documents": count,
        "first_s": round(first_s, 2),
        "all_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time(), 1),
        "growth_mb": round(_peak_mb() - before),
    }


def _peak_mb() -> float:
    """Return the most that this process has held: VmHWM, which its parent's has no part in."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


@contextmanager
def _endpoint(documents: int) -> Iterator[str]:
    command = [sys.executable, str(_SERVER), str(documents)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def _in_a_fresh_process(name: str, endpoint: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--endpoint", endpoint]
    done = subprocess.run([*command, "--folder", folder], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _is_good(one: dict[str, Any]) -> bool:
    limit = _GROWTH_MB if "folder" in one["what"] else _GROWTH_NAMED_TWICE_MB
    return one["first_s"] <= _FIRST_S and one["growth_mb"] <= limit


_NAMES = ("documents", "first s", "all s", "cpu s", "a second", "growth MB")
_WIDTHS = (11, 9, 8, 8, 12, 11)
_HEAD = " " * 22 + "".join(map(str.rjust, _NAMES, _WIDTHS))


def _line(one: dict[str, Any]) -> str:
    return (
        f"{one['what']:22}{one['documents']:>11,}{one['first_s']:>9.2f}{one['all_s']:>8.1f}"
        f"{one['cpu_s']:>8.1f}{one['documents'] / one['all_s']:>12,.0f}{one['growth_mb']:>11}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.endpoint, options.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="pagelake-proof-") as name:
        folder = Path(name)
        made = inputs(options.documents, folder)
        plain = {key: (what.model_dump(), count) for key, (what, count) in made.items()}
        (folder / "inputs.json").write_text(json.dumps(plain))
        if not options.json:
            print(_HEAD, flush=True)
        found = []
        with _endpoint(options.documents) as endpoint:
            for key in made:
                found.append(_in_a_fresh_process(key, endpoint, folder))
                if not options.json:
                    print(_line(found[-1]), flush=True)
    good = all(map(_is_good, found))
    if options.json:
        print(json.dumps({"measured": found, "within_limits": good}))
    else:
        print("within the limits" if good else "over the limits")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
