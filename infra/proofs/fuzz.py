"""Mutated documents, job files, answers and papers through the product: no law may break.

    python infra/proofs/fuzz.py --documents 16000 --jobs 4000 --answers 4000 --papers 2000 --seed 0
    python infra/proofs/fuzz.py --replay build/fuzz/answer-value-0-17.bin

Every case must end as the product says such things end, within its time; memory and open files of
this process must not grow, and no process may be left. What escapes is saved under build/fuzz with
its seed, and the exit code is 1. `build/fuzz/running-*.bin` is the case under way, should it hang.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

sys.path.append(str(Path(__file__).parents[2] / "tests" / "faults"))
from fuzz_answers import Answers
from fuzz_documents import Documents
from fuzz_frame import Escape, Target
from fuzz_jobs import Jobs
from fuzz_papers import Papers

TARGETS: dict[str, tuple[type[Target], int, float]] = {
    "documents": (Documents, 16_000, 30.0),
    "jobs": (Jobs, 4_000, 5.0),
    "answers": (Answers, 4_000, 30.0),
    "papers": (Papers, 2_000, 5.0),
}
"""What is fuzzed, how many by default, and the seconds by the clock that one case may take."""

_WARM = 0.2
_ALLOWED_MB = 32
_SLOWEST = 8


@dataclass
class Tally:
    """What became of the cases of one target."""

    ends: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: list[tuple[float, str]] = field(default_factory=list)
    escapes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, mutator: str, end: str, seconds: float, label: str) -> None:
        self.ends[mutator][end] += 1
        heapq.heappush(self.slowest, (seconds, f"{label} {end}"))
        if len(self.slowest) > _SLOWEST:
            heapq.heappop(self.slowest)

    def show(self, name: str) -> None:
        total = sum((counts for counts in self.ends.values()), Counter())
        n = sum(total.values())
        print(f"\n{name}: {n} in {self.seconds:.0f} s, {n / self.seconds:.0f}/s")
        for end, count in total.most_common():
            by = ", ".join(f"{who} {c[end]}" for who, c in sorted(self.ends.items()) if c[end])
            print(f"  {count:6} {end:32} {by}")
        for seconds, label in sorted(self.slowest, reverse=True):
            print(f"  {seconds:6.2f} s {label}")
        for escape in self.escapes:
            print(f"  ESCAPE {escape}")


def measure() -> tuple[int, int]:
    """Return memory in MB and open files of this process."""
    gc.collect()
    rollup = Path("/proc/self/smaps_rollup").read_text()
    pss = re.search(r"^Pss_Anon: +(\d+) kB$", rollup, re.M)
    assert pss is not None
    return int(pss[1]) >> 10, psutil.Process().num_fds()


def too_late(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Escape("it took too long")


def judge(target: Target, case: bytes, limit_s: float) -> str:
    """Judge within a time: the alarm rings in what is Python, and after what is not."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return target.judge(case)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz(name: str, number: int, seed: int, folder: Path) -> Tally:
    """Make and judge so many cases."""
    make, _, limit_s = TARGETS[name]
    target, tally = make(), Tally()
    running = folder / f"running-{target.name}.bin"
    early = measure()
    started = time.monotonic()
    for index in range(number):
        if index == int(number * _WARM):
            early = measure()
        mutator, case = target.make(random.Random(f"{target.name} {seed} {index}"))
        label = f"{target.name}-{mutator.replace(' ', '-')}-{seed}-{index}"
        running.write_bytes(case)
        began = time.monotonic()
        try:
            end = judge(target, case, limit_s)
        except Exception as error:
            end = "ESCAPE"
            (folder / f"{label}.bin").write_bytes(case)
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            tally.escapes.append(
                f"{label}.bin {place} {type(error).__name__}: {ascii(error)[:300]}"
            )
        tally.add(mutator, end, time.monotonic() - began, label)
    tally.seconds = time.monotonic() - started
    late = measure()
    try:
        target.close()
    except Escape as error:
        tally.escapes.append(str(error))
    running.unlink(missing_ok=True)
    print(f"{name}: memory {early[0]} -> {late[0]} MB, open files {early[1]} -> {late[1]}")
    if late[0] > early[0] + _ALLOWED_MB or late[1] > early[1]:
        tally.escapes.append("memory or open files have grown")
    return tally


def replay(path: Path) -> None:
    """Judge one saved case again; what escapes shows its traceback."""
    make = next(make for make, *_ in TARGETS.values() if path.name.startswith(make.name))
    target = make()
    try:
        print(target.judge(path.read_bytes()))
    finally:
        target.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, (_, number, _) in TARGETS.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.replay is not None:
        replay(options.replay)
        return

    folder = Path("build/fuzz")
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, too_late)
    escapes = 0
    for name in TARGETS:
        number = getattr(options, name)
        if number:
            tally = fuzz(name, number, options.seed, folder)
            tally.show(name)
            escapes += len(tally.escapes)
    print(f"\n{escapes} escapes")
    sys.exit(1 if escapes else 0)


if __name__ == "__main__":
    main()
