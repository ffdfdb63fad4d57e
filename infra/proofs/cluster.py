"""A real Ray cluster of several machines: jobs are submitted from outside, and machines are lost.

    python infra/proofs/cluster.py

Machines are network namespaces (`machines.py`): a head and two workers, each a `ray start` with an
address of its own, beside an S3 endpoint. From outside, `pagelake submit --follow` runs a job whose
input and output lie in the store; then the same into another output, while one worker, the one with
a model, is ended with `kill -9`. Both must end with exit codes 0 or 3 and equal tables, run ids,
timings and attempts aside. Then `status`, `logs` and `stop` of a job that goes on. Exits 1 if
anything differs. Linux only; with root for real namespaces, else with loopback addresses.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import yaml
from cluster_world import GCS, World, ray_cluster, wait
from machines import Machine
from pyarrow import fs

from pipeline.synth.corpus import write_corpus
from pipeline.synth.words import Split

ROOT = Path(__file__).parent.parent.parent
# What guesses save depends on which pages were answered before.
_OF_A_RUN = {"run_id", "processed_at", "attempts", "drafted_tokens", "passes"}
_ENDS = {0, 3}
_PATIENCE_S = 1200


def upload(world: World, documents: int) -> None:
    """Put the demo's documents, and more that are made, into the store."""
    world.store.make_bucket("lake")
    made = world.folder / "made"
    made.mkdir()
    write_corpus(made, 0, documents, Split.TEST)
    files = [*(ROOT / "jobs/demo/documents").iterdir(), *(made / "documents").iterdir()]
    for file in files:
        with world.store.filesystem.open_output_stream(f"lake/in/{file.name}") as stream:
            stream.write(file.read_bytes())


def write_job(world: World, name: str, **changes: Any) -> Path:
    job = {
        "name": name,
        "input": {"paths": ["s3://lake/in"]},
        "schema": "receipt.v1",
        "model": {"name": "nano"},
        "resources": {
            "cpus_per_actor": 1,
            "actors": {"min": 2, "max": 2},
            "custom_per_actor": {"reader": 1},
            "custom_per_task": {"cpu_node": 0.01},
        },
        "stores": world.store.stores,
        "output": {"uri": "s3://lake/out"},
    } | changes
    path = world.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def commits(world: World, output: str) -> int:
    folder = f"{output.removeprefix('s3://')}/_pagelake/commits"
    selector = fs.FileSelector(folder, allow_not_found=True)
    return sum(f.path.endswith(".json") for f in world.store.filesystem.get_file_info(selector))


def tables(world: World, output: str) -> dict[str, list[dict[str, Any]]]:
    """Return both tables as a plain glob reads them, without what a run alone decides."""
    found = {}
    for table in ("documents", "pages"):
        folder = f"{output.removeprefix('s3://')}/{table}"
        rows = ds.dataset(folder, filesystem=world.store.filesystem).to_table().to_pylist()
        kept = [
            {k: v for k, v in row.items() if k not in _OF_A_RUN and not k.endswith("_s")}
            for row in rows
        ]
        found[table] = sorted(kept, key=lambda row: (row["uri"], str(row.get("page_numbers"))))
    return found


def follow(run: subprocess.Popen[str]) -> int:
    """Show what a followed job says, and return its exit code."""
    assert run.stdout is not None
    for line in run.stdout:
        print(f"    | {line.rstrip()}", flush=True)
    return run.wait()


def with_model(machines: tuple[Machine, ...]) -> Machine:
    """Return the machine on which most copies of the model are."""

    def copies(machine: Machine) -> int:
        return sum("MapWorker" in _title(process) for process in machine.processes())

    counts = {machine.name: copies(machine) for machine in machines}
    print(f"  copies of the model: {counts}", flush=True)
    return max(machines, key=copies)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def undisturbed(world: World, job: Path) -> list[str]:
    started = time.monotonic()
    code = follow(world.submit(job, "s3://lake/calm", "--follow"))
    print(f"  exit code {code} after {time.monotonic() - started:.0f} s", flush=True)
    return [] if code in _ENDS else [f"the undisturbed run ended with {code}"]


def lose_a_machine(world: World, job: Path, after: int) -> list[str]:
    """Kill the worker with the model once some shards are committed."""
    output, started = "s3://lake/killed", time.monotonic()
    run = world.submit(job, output, "--follow", "--source")
    wait(lambda: commits(world, output) >= after or run.poll() is not None,
          "no commits", _PATIENCE_S)  # fmt: skip
    if run.poll() is not None:
        return [f"the run ended with {follow(run)} before a machine could be lost"]
    victim = with_model(world.network.machines[1:])
    at, committed = time.monotonic() - started, commits(world, output)
    print(f"  killed {victim.kill()} processes of {victim.name} after {at:.0f} s, with "
          f"{committed} commits", flush=True)  # fmt: skip
    code = follow(run)
    print(f"  exit code {code} after {time.monotonic() - started:.0f} s", flush=True)
    wrong = [] if code in _ENDS else [f"the run that lost a machine ended with {code}"]
    calm, killed = tables(world, "s3://lake/calm"), tables(world, output)
    for table, rows in calm.items():
        same = rows == killed[table]
        print(f"  {table}: {len(rows)} rows, {'equal' if same else 'DIFFERENT'}", flush=True)
        wrong += [] if same else [f"{table} differ: {_first_difference(rows, killed[table])}"]
    return wrong


def _first_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} rows"
    a, b = next((a, b) for a, b in zip(one, other, strict=True) if a != b)
    return f"{a['uri']}: " + ", ".join(f"{k}: {a[k]!r}, {b.get(k)!r}" for k in a if a[k] != b[k])


def look_and_stop(world: World) -> list[str]:
    """Ask about a slow job from outside, and stop it."""
    slow = write_job(world, "slow", task="ocr", model={
        "family": "fake", "name": "fake?edge=224&seconds=1"})  # fmt: skip
    job = yaml.safe_load(slow.read_text())
    del job["schema"]
    slow.write_text(yaml.safe_dump(job))
    output, wrong = "s3://lake/slow", []
    code, said = _ended(world.submit(slow, output, "--wheel", str(_wheel(world.folder))))
    job_id = said.strip().splitlines()[-1]
    print(f"  submitted {job_id}", flush=True)
    wait(lambda: commits(world, output) >= 1, "the slow job commits nothing", _PATIENCE_S)
    code, said = world.asked("status", job_id, "--json")
    found = json.loads(said)
    going = found["output"]["going_on"] or {}
    print(f"  status: {found['state']}, {going.get('pages_committed')} of "
          f"{going.get('pages_planned')} pages, {going.get('pages_per_s')} pages/s, "
          f"{going.get('eta_s')} s left", flush=True)  # fmt: skip
    if found["state"] != "RUNNING" or not going.get("pages_planned"):
        wrong.append(f"status does not see the run: {said}")
    code, said = world.asked("logs", job_id)
    wrong += [] if "reading:" in said else [f"logs do not tell of the run: {said}"]
    began = time.monotonic()
    code, said = world.asked("stop", job_id)
    print(f"  stop: exit code {code} after {time.monotonic() - began:.1f} s: {said.strip()}")
    code, said = world.asked("status", job_id)
    print("  " + said.replace("\n", "\n  "), flush=True)
    wrong += [] if "stopped" in said and "no run is on" in said else ["the job was not stopped"]
    return wrong


def refuse(world: World) -> list[str]:
    """Run a job on the head itself, with an output that only the head has."""
    head = world.network.machines[0]
    environment = world.environment | {"RAY_ADDRESS": f"{head.address}:{GCS}"}
    log, job = world.folder / "refused.log", world.folder / "receipts.yaml"
    command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--output", "/tmp/pl-refused"]
    code = head.start(command, log, environment).wait(_PATIENCE_S)
    said = log.read_text().strip().splitlines()[-1]
    print(f"  a local output: exit code {code}: {said}", flush=True)
    right = code == 2 and "output.uri: '/tmp/pl-refused' is on this machine only" in said
    shutil.rmtree("/tmp/pl-refused", ignore_errors=True)
    return [] if right else ["a local output is not refused"]


def _wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=_PATIENCE_S)
    return process.returncode, said


def prove(options: argparse.Namespace, folder: Path) -> int:
    started = time.monotonic()
    with ray_cluster(folder) as world:
        kind = "namespaces" if world.network.machines[0].namespace else "loopback addresses"
        print(f"a cluster of {kind} is up after {time.monotonic() - started:.0f} s: "
              f"{[m.address for m in world.network.machines]}", flush=True)  # fmt: skip
        upload(world, options.documents)
        job = write_job(world, "receipts")
        print("undisturbed:", flush=True)
        wrong = undisturbed(world, job)
        if not wrong:
            print("what one machine alone has:", flush=True)
            wrong += refuse(world)
            print("status, logs, stop:", flush=True)
            wrong += look_and_stop(world)
            print("a machine is lost:", flush=True)
            wrong += lose_a_machine(world, job, options.after)
    print("all as it should be" if not wrong else "\n".join(wrong))
    return len(wrong)


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--documents", type=int, default=90, help="beside the demo's")
    options.add_argument("--after", type=int, default=2, help="commits, a machine is lost")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="plc-", ignore_cleanup_errors=True) as folder:
        sys.exit(bool(prove(given, Path(folder))))


if __name__ == "__main__":
    main()
