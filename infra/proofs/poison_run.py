"""Hostile files among good ones, in whole runs: every document ends as it must, and the run ends.

    python infra/proofs/poison_run.py --good 300

Files of `tests/faults/poison.py`, pages that kill, hang, fail and exhaust the model, and files that
vanish or change before they are planned or read are mixed into a pile of good ones. `pagelake run`
with Ray and two workers reads the good ones alone, then everything, then everything again, then
with `--retry`. After each run the tables are held against what lay on the disk, document by
document and page by page; and nothing may be left behind, neither processes nor files. Exits 1 if
anything is not as it must be. Linux only; takes some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from poisoned import ATTEMPTS, ITEM_S, Pile
from world import Run, World

sys.path.append(str(Path(__file__).parents[2] / "tests" / "faults"))
import poison_pdf
from poison import LIMITS
from poison_pile import HARMS, Expected, Finding, accounts, judge

_PASSWORD = "PAGELAKE_PROOF_PASSWORD"
_WRONG = "wrong"
_LOST = "source_missing"  # looked for in every run
_MODEL = "fake?edge=224&" + "&".join(f"{harm}={colour}" for harm, (colour, _) in HARMS.items())
_JOB = """\
input: {{{files}, password_env: {password_env}}}
task: ocr
model: {{family: fake, name: "{model}"}}
resources: {{cpus: 2}}
render: {{cpu_s: {render.cpu_s}, wall_s: {render.wall_s}, memory_mb: {render.memory_mb}}}
limits: {{item_s: {item_s}, attempts: {attempts}}}
output: {{uri: {output}}}
"""

Row = dict[str, Any]
Page = tuple[str, int]


class Tables:
    """What lies in an output."""

    def __init__(self, output: Path) -> None:
        self.documents, self.pages = _rows(output, "documents"), _rows(output, "pages")

    def by_page(self, column: str) -> dict[Page, Any]:
        """Return a column by content and page number."""
        return {(r["document_id"], n): r[column] for r in self.pages for n in r["page_numbers"]}

    def made_by(self, run: Run) -> set[Page]:
        """Return the pages that a run read."""
        found = self.by_page("run_id")
        return {page for page, run_id in found.items() if run_id == run.summary["run_id"]}

    def failed_plans(self) -> Iterator[tuple[str, str]]:
        """Yield uri and failure kind of documents that could not be opened to be planned."""
        for row in self.documents:
            if row["failure_stage"] == "discover" and row["n_pages"] is None:
                yield row["uri"], row["failure_kind"]


def _rows(output: Path, table: str) -> list[Row]:
    files = sorted(str(file) for file in (output / table).glob("*.parquet"))
    found: list[Row] = ds.dataset(files).to_table().to_pylist()
    return found


class Proof:
    """The runs one after the other, and how many checks did not hold."""

    def __init__(self, folder: Path, n_good: int, seed: int) -> None:
        self.wrong = 0
        self._folder = folder
        self._output = folder / "mixed"
        self._world = World(folder)
        self._pile = Pile(folder / "in", n_good, seed)
        self._files = self._pile.files()
        self._findings: list[Finding] = []

    def check(self, good: bool, what: str) -> None:
        """Print whether something holds, and count it if not."""
        self.wrong += not good
        print(f"  {'ok ' if good else 'NOT'}  {what}", flush=True)

    def prove(self) -> None:
        calm, alone = self._good_ones_alone()
        self._everything(calm, alone)
        self._the_same_again()
        self._retry_of_timeouts()
        self._retry_with_the_password()
        print_poisons(self._findings)

    def _good_ones_alone(self) -> tuple[Run, Tables]:
        print("the good ones alone")
        job = self._job("calm", f"paths: [{self._pile.good}]")
        run = self._world.run(job, environment={_PASSWORD: _WRONG})
        self.check(run.status == 0, f"exit status {run.status} after {run.wall_s:.1f} s")
        return run, Tables(self._folder / "calm")

    def _everything(self, calm: Run, alone: Tables) -> None:
        print("everything")
        meanwhile = self._pile.meanwhile(self._output)
        expected = self._pile.expected(_WRONG, self._pile.to_change())
        run, tables = self._run(expected, meanwhile=meanwhile)
        good = alone.by_page("raw_text")
        same = good.items() <= tables.by_page("raw_text").items()
        self.check(same, f"{len(good)} good pages read as they are alone")
        bound_s = self._pile.bound_s()
        allowed = f"{calm.wall_s:.1f} as the good ones alone and {bound_s:.0f} for all others"
        self.check(run.wall_s <= calm.wall_s + bound_s, f"{run.wall_s:.1f} s, of {allowed}")

    def _the_same_again(self) -> None:
        print("the same again")
        old = Tables(self._output)
        run, new = self._run(self._pile.expected(_WRONG, self._pile.changed()))
        before, after = old.by_page("failure_kind"), new.by_page("failure_kind")
        todo = {page for page in after if page not in before or before[page] is not None}
        made = new.made_by(run)
        self.check(made == todo, f"{len(made)} pages read: those that had failed or changed")
        changed = {str(path) for path in self._pile.changing.values()}
        planned = changed | {uri for uri, _ in old.failed_plans()}
        self._check_planned(run, len(planned))

    def _retry_of_timeouts(self) -> None:
        print("--retry render_timeout")
        old = Tables(self._output)
        kinds = old.by_page("failure_kind")
        expected = self._pile.expected(_WRONG, self._pile.changed())
        run, new = self._run(expected, "--retry", "render_timeout")
        made = new.made_by(run)
        todo = {page for page, kind in kinds.items() if kind == "render_timeout"}
        self.check(made == todo != set(), f"{len(made)} pages read: those that had timed out")
        self._check_planned(
            run, sum(kind in ("render_timeout", _LOST) for _, kind in old.failed_plans())
        )

    def _retry_with_the_password(self) -> None:
        print("--retry encrypted, with the password")
        old = Tables(self._output)
        locked = {uri for uri, kind in old.failed_plans() if kind == "encrypted"}
        expected = self._pile.expected(poison_pdf.PASSWORD, self._pile.changed())
        run, new = self._run(expected, "--retry", "encrypted", password=poison_pdf.PASSWORD)
        made = new.made_by(run)
        todo = {page for uri in locked for page in expected[uri].rows}
        self.check(made == todo != set(), f"{len(made)} pages read: of what had been locked")
        lost = sum(kind == _LOST for _, kind in old.failed_plans())
        self._check_planned(run, len(locked) + lost)

    def _job(self, name: str, files: str) -> Path:
        path = self._folder / f"{name}.yaml"
        text = _JOB.format(
            files=files,
            password_env=_PASSWORD,
            model=_MODEL,
            render=LIMITS,
            item_s=ITEM_S,
            attempts=ATTEMPTS,
            output=self._folder / name,
        )
        path.write_text(text)
        return path

    def _run(
        self,
        expected: dict[str, Expected],
        *arguments: str,
        password: str = _WRONG,
        meanwhile: Iterable[None] = (),
    ) -> tuple[Run, Tables]:
        """Run over everything, and check how it ended, and every row."""
        files = f"paths: [{self._pile.mixed}], manifest: {self._pile.manifest}"
        run = self._world.run(
            self._job("mixed", files),
            *arguments,
            environment={_PASSWORD: password},
            meanwhile=meanwhile,
        )
        self.check(run.status == 3, f"exit status {run.status} after {run.wall_s:.1f} s")
        self.check(not run.left, f"left behind: {', '.join(run.left) or 'nothing'}")
        self.check(self._pile.files() == self._files, "the input is as it was")
        tables = Tables(self._output)
        self._check_tables(expected, tables)
        return run, tables

    def _check_tables(self, expected: dict[str, Expected], tables: Tables) -> None:
        found = judge(expected, tables.documents, tables.pages)
        self._findings = self._findings or found
        wrong = [one for one in found if not one.right]
        right = f"{len(found) - len(wrong)} of {len(found)} documents ended as they must"
        self.check(not wrong, right)
        for one in wrong:
            print(f"       {one.expected.name!a}: {one.expected.text()}; found {one.found}")
        lost = accounts(expected, tables.documents, tables.pages)
        rows = f"{len(tables.documents)} documents and {len(tables.pages)} pages"
        self.check(not lost, "; ".join([rows, *(lost or ["none missing, none doubled"])]))

    def _check_planned(self, run: Run, n_documents: int) -> None:
        opened = sum(run.summary["documents"].values()) - run.summary["documents_known"]
        self.check(opened == n_documents, f"{opened} documents planned, of {n_documents} to plan")


def print_poisons(findings: list[Finding]) -> None:
    """Print how all ended in the first run over everything, the good ones in one line."""
    good = [one for one in findings if one.expected.name[0].isdigit()]
    print(f"\n{'document':34}{'expected':38}found")
    for one in findings:
        if one not in good:
            name, mark = ascii(one.expected.name)[1:-1], "" if one.right else "  WRONG"
            print(f"{name[:32]:34}{one.expected.text():38}{one.found}{mark}")
    bad = sum(one.expected.state != "ok" for one in findings)
    others = f"{len(findings) - len(good)} others"
    print(f"{len(good)} good documents and {others}; {bad} of them fail, in part or whole")
    print(f"{sum(one.right for one in findings)} of {len(findings)} ended as they must\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--good", type=int, default=300, help="good documents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for piles, outputs and logs; kept")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="pagelake-"))
    proof = Proof(folder.resolve(), options.good, options.seed)
    proof.prove()
    if options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    print("all as it must be" if not proof.wrong else f"{proof.wrong} checks did not hold")
    sys.exit(bool(proof.wrong))


if __name__ == "__main__":
    main()
