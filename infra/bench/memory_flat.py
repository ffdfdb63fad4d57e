"""Peak memory of a run over one long document against a run over a short one.

    python infra/bench/memory_flat.py --pages 3000

Both runs are `pagelake run` with Ray and the weightless `fake` model, which takes pages at the full
size of Idefics2 with image splitting. Memory is sampled over the whole process tree, Ray's own
daemons included (`process_tree.py`). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from fpdf import FPDF
from process_tree import MARKER, ProcessTree, Sample, take_sample

_MIB = 1 << 20
_ALLOWED_MIB = 300
_JOB = """\
name: memory-flat
input:
  paths: [{pdf}]
  max_pages: {max_pages}
schema: receipt.v1
model:
  family: fake
  name: fake
output:
  uri: {output}
"""


def write_pdf(path: Path, n_pages: int) -> None:
    """Write an A4 document of `n_pages` different pages: forty lines of text, boxes and a curve."""
    pdf = FPDF(unit="pt", format="A4")
    pdf.set_auto_page_break(False)
    pdf.set_font("Helvetica", size=10)
    for number in range(1, n_pages + 1):
        pdf.add_page()
        pdf.text(60, 50, f"Page {number} of {n_pages}")
        for line in range(40):
            pdf.text(60, 80 + 14 * line, f"{number}.{line}  " + "lorem ipsum dolor sit amet " * 3)
        for box in range(8):
            pdf.set_fill_color((number * 37 + box * 31) % 256, (number * 11) % 256, 40 * box % 256)
            pdf.rect(60 + 55 * box, 680, 40, 20 + (number * 7 + box * 13) % 80, style="F")
        pdf.ellipse(60, 775, 100 + number % 300, 30)
    pdf.output(str(path))


@dataclass(frozen=True)
class Result:
    n_pages: int
    wall_s: float
    samples: list[Sample]

    @property
    def peak(self) -> Sample:
        return max(self.samples, key=lambda sample: sample.total)

    def median(self, group: str, start: float, end: float) -> float:
        """A group's median between two fractions of the run."""
        part = [s for s in self.samples if start * self.wall_s <= s.at_s <= end * self.wall_s]
        sizes = sorted(sample.groups[group] for sample in part)
        return sizes[len(sizes) // 2] if sizes else 0


def run(folder: Path, n_pages: int, every_s: float, sets: list[str]) -> Result:
    pdf = folder / f"{n_pages}.pdf"
    write_pdf(pdf, n_pages)
    job = folder / f"{n_pages}.yaml"
    job.write_text(_JOB.format(pdf=pdf, max_pages=n_pages, output=folder / f"out-{n_pages}"))
    mark = secrets.token_hex(8)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--json"]
    command += [argument for item in sets for argument in ("--set", item)]
    started = time.monotonic()
    samples: list[Sample] = []
    with (folder / f"{n_pages}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {MARKER: mark})
        tree = ProcessTree(process.pid, f"{MARKER}={mark}")
        while process.poll() is None:
            samples.append(take_sample(tree.pids(), time.monotonic() - started))
            time.sleep(every_s)
    if process.returncode not in (0, 3):  # 3: the fake answers merge to no valid receipt
        raise SystemExit(
            f"the run exited {process.returncode}:\n{Path(log.name).read_text()[-2000:]}"
        )
    return Result(n_pages, time.monotonic() - started, samples)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=3000)
    parser.add_argument("--few", type=int, default=10, help="pages of the short document")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    parser.add_argument("--trace", type=Path, help="write every sample here, as JSON lines")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
        few = run(Path(folder), options.few, min(options.every, 0.25), options.sets)
        many = run(Path(folder), options.pages, options.every, options.sets)
    if options.trace:
        lines = (
            json.dumps({"pages": result.n_pages, "at_s": round(s.at_s, 2), **s.groups})
            for result in (few, many)
            for s in result.samples
        )
        options.trace.write_text("\n".join(lines) + "\n")
    difference = many.peak.total - few.peak.total
    report = {
        "few": _summary(few),
        "many": _summary(many),
        "difference_mib": round(difference / _MIB),
        "within_limit": difference <= _ALLOWED_MIB * _MIB,
    }
    print(json.dumps(report) if options.json else _table(few, many))


def _summary(result: Result) -> dict[str, object]:
    return {
        "pages": result.n_pages,
        "wall_s": round(result.wall_s, 1),
        "peak_mib": round(result.peak.total / _MIB),
        "peak_at_s": round(result.peak.at_s, 1),
        "peak_by_group_mib": {g: round(n / _MIB) for g, n in result.peak.groups.items()},
    }


def _table(few: Result, many: Result) -> str:
    highest: dict[int, Counter[str]] = defaultdict(Counter)
    for result in (few, many):
        for sample in result.samples:
            highest[result.n_pages] |= sample.groups
    lines = [
        "MiB; at the total's peak, then each group's own peak, then its median in the second and",
        f"in the last tenth of the {many.n_pages}-page run",
        f"{'':42}{few.n_pages:>8}{many.n_pages:>8}{'own':>8}{'own':>8}{'2nd':>8}{'last':>8}",
    ]
    for group in sorted(highest[many.n_pages] | highest[few.n_pages]):
        figures = (
            few.peak.groups[group],
            many.peak.groups[group],
            highest[few.n_pages][group],
            highest[many.n_pages][group],
            many.median(group, 0.1, 0.2),
            many.median(group, 0.9, 1.0),
        )
        lines.append(f"{group:42}" + "".join(f"{figure / _MIB:8.0f}" for figure in figures))
    peaks = (few.peak.total, many.peak.total)
    lines.append(f"{'all':42}" + "".join(f"{peak / _MIB:8.0f}" for peak in peaks))
    lines.append(f"wall: {few.wall_s:.0f} s and {many.wall_s:.0f} s")
    difference = (peaks[1] - peaks[0]) / _MIB
    verdict = "within" if difference <= _ALLOWED_MIB else "over"
    lines.append(f"difference: {difference:+.0f} MiB, {verdict} the {_ALLOWED_MIB} allowed")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
