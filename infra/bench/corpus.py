"""Run the pipeline over files that PDF and image libraries test themselves with.

    python infra/bench/corpus.py build/corpus

The files are chosen, by a seed, from the source distributions of those libraries, which pip
downloads; a folder that has files already is used as it is. Among them are damaged, encrypted and
hostile ones on purpose. The run uses Ray and the weightless `fake` model; then the tables are
checked: a documents row a file, a pages row a page, and sums that agree with the summary.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.dataset as ds

# Pinned, so that a seed chooses the same files everywhere.
_SOURCES = ("pypdf==7.1.0", "pikepdf==10.17.0", "pypdfium2==5.15.2", "ocrmypdf==17.13.0")
_IMAGE_SOURCES = ("pillow==13.0.0",)
_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}
_JOB = """\
name: corpus
task: ocr
schema: text.v1
input:
  paths: [{files}]
model:
  family: fake
  name: {model}
output:
  uri: {output}
"""


def fetch(folder: Path, n_files: int, image_share: float, seed: int) -> None:
    """Fill `folder` with `n_files` of different content, `image_share` of them images."""
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as downloads:
        for requirement in (*_SOURCES, *_IMAGE_SOURCES):
            package = requirement.partition("==")[0]
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", package, "--dest", downloads, requirement]
            subprocess.run(command, check=True)
        found = dict(_members(Path(downloads)))
    chance = random.Random(seed)
    n_images = round(n_files * image_share)
    images = sorted(name for name in found if Path(name).suffix.lower() in _IMAGES)
    pdfs = sorted(found.keys() - set(images))
    chosen = chance.sample(images, min(n_images, len(images)))
    chosen += chance.sample(pdfs, min(n_files - len(chosen), len(pdfs)))
    folder.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        (folder / name).write_bytes(found[name])


def _members(downloads: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (flat file name, content) of every PDF and image, each content once."""
    seen: set[str] = set()
    for archive in sorted(downloads.glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                stream = tar.extractfile(member)
                if stream is None or path.suffix.lower() not in _IMAGES | {".pdf"}:
                    continue
                content = stream.read()
                digest = hashlib.sha256(content).hexdigest()
                if digest not in seen:
                    seen.add(digest)
                    yield "__".join(path.parts), content


@dataclass(frozen=True)
class Outcome:
    """What a run left: the exit code, its summary, and the two tables' rows."""

    exit_code: int
    wall_s: float
    summary: dict[str, Any]
    documents: list[dict[str, Any]]
    pages: list[dict[str, Any]]

    def problems(self, files: list[Path]) -> list[str]:
        """Whatever is not as it must be; empty if all is well."""
        listed = {Path(row["uri"]).name for row in self.documents}
        names = {file.name for file in files}
        planned = {
            (row["document_id"], number)
            for row in self.documents
            if row["failure_stage"] != "discover"
            for number in range(1, row["n_pages"] + 1)
        }
        written = [(row["document_id"], n) for row in self.pages for n in row["page_numbers"]]
        checks = {
            f"exit code {self.exit_code}": self.exit_code in (0, 3),
            f"files without a documents row: {sorted(names - listed)}": names <= listed,
            "documents rows and files differ in number": len(self.documents) == len(files),
            "pages rows and planned pages differ": set(written) == planned,
            "a page has two rows": len(written) == len(set(written)),
            "documents of the summary do not add up": sum(self.summary["documents"].values())
            == len(files),
            "pages of the summary do not add up": sum(self.summary["pages"].values())
            == len(written),
        }
        return [problem for problem, holds in checks.items() if not holds]


def run(files: Path, work: Path, model: str, timeout_s: float) -> Outcome:
    job, output = work / "corpus.yaml", work / "out"
    job.write_text(_JOB.format(files=files.resolve(), model=model, output=output))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", str(job), "--json"],
        stdout=subprocess.PIPE,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"the run exited {done.returncode}")
    columns = ["uri", "document_id", "n_pages", "state"]
    columns += ["failure_kind", "failure_stage", "failure_message"]
    return Outcome(
        exit_code=done.returncode,
        wall_s=time.monotonic() - started,
        summary=json.loads(done.stdout),
        documents=ds.dataset(output / "documents").to_table(columns).to_pylist(),
        pages=ds.dataset(output / "pages").to_table([*columns, "page_numbers"]).to_pylist(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--images", type=float, default=0.2, help="share of images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="fake?edge=224")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds")
    parser.add_argument("--list", action="store_true", help="name every file that failed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    if not options.folder.is_dir() or not any(options.folder.iterdir()):
        fetch(options.folder, options.files, options.images, options.seed)
    files = sorted(options.folder.iterdir())
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as work:
        outcome = run(options.folder, Path(work), options.model, options.timeout)
    problems = outcome.problems(files)
    print(_report(files, outcome, problems) if options.json else _table(files, outcome, problems))
    if options.list:
        for row in outcome.documents:
            if row["state"] != "ok":
                kind, message = row["failure_kind"], row["failure_message"]
                print(f"{Path(row['uri']).name}: {row['state']}, {kind}: {message}")
    raise SystemExit(1 if problems else 0)


def _failures(rows: list[dict[str, Any]]) -> dict[str, int]:
    kinds = Counter(f"{r['failure_stage']} {r['failure_kind']}" for r in rows if r["failure_kind"])
    return dict(kinds.most_common())


def _report(files: list[Path], outcome: Outcome, problems: list[str]) -> str:
    report = {
        "files": len(files),
        "wall_s": round(outcome.wall_s, 1),
        "exit_code": outcome.exit_code,
        "documents": dict(Counter(row["state"] for row in outcome.documents)),
        "pages": dict(Counter(row["state"] for row in outcome.pages)),
        "document_failures": _failures(outcome.documents),
        "page_failures": _failures(outcome.pages),
        "problems": problems,
    }
    return json.dumps(report)


def _table(files: list[Path], outcome: Outcome, problems: list[str]) -> str:
    suffixes = Counter(file.suffix.lower() for file in files)
    lines = [
        f"{len(files)} files: " + ", ".join(f"{n} {s}" for s, n in suffixes.most_common()),
        f"exit code {outcome.exit_code}, {outcome.wall_s:.0f} s of wall time, start-up included",
    ]
    for what, rows in (("documents", outcome.documents), ("pages", outcome.pages)):
        states = Counter(row["state"] for row in rows)
        lines.append(f"{what}: {len(rows)}: " + ", ".join(f"{n} {s}" for s, n in states.items()))
        lines += [f"    {count:5} {kind}" for kind, count in _failures(rows).items()]
    lines.append("checks: " + ("; ".join(problems) if problems else "all hold"))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
