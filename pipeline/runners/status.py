"""What an output holds and how far a run on it is, read from its ledger and its lock alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc

from pipeline.errors import OutputError, one_line
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Commit, Ledger, Manifest
from pipeline.lake.lock import clock, holder
from pipeline.lake.plans import read_rows, run_file
from pipeline.lake.store_errors import complaint
from pipeline.lake.stores import Stores

_RATE_OVER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Finished:
    """The tables as they were last published."""

    run_id: str
    finished_at: str
    documents: Mapping[str, int]
    pages: Mapping[str, int]
    failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GoingOn:
    """A run that writes to the output now.

    `pages_planned` are those it has to do, None until it has planned; `pages_per_s` is that of the
    last minute, or of its commits so far.
    """

    run_id: str
    host: str
    since: str
    pages_planned: int | None
    pages_committed: int
    states: Mapping[str, int]
    failures: Mapping[str, int]
    pages_per_s: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """An output: what is finished, what goes on, and commits that are in no finished table yet."""

    output: str
    finished: Finished | None
    going_on: GoingOn | None
    commits: int
    pages_committed: int
    states: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps(asdict(self))

    def lines(self) -> list[str]:
        """Return what people are told."""
        lines = [self.output]
        if self.finished is None:
            lines.append("no run has finished")
        else:
            done = self.finished
            lines.append(f"finished     {done.finished_at} by run {done.run_id}")
            lines.append(f"  documents  {_counts(done.documents)}")
            lines.append(f"  pages      {_counts(done.pages)}")
            lines += [f"  {count:,} x {kind}" for kind, count in sorted(done.failures.items())]
        if self.going_on is not None:
            lines += _going_on_lines(self.going_on)
        elif self.commits:
            lines.append(
                f"unfinished   {self.pages_committed:,} pages in {self.commits:,} commits, and no "
                "run is on; run the job again to continue"
            )
        return lines


def status(uri: str, stores: Stores = Stores()) -> Status:
    """Read the state of an output. Writes nothing, and waits for no run.

    Raises
    ------
    OutputError
        If there is no output, it cannot be read, or its ledger is damaged.
    RunError
        If its store is away.
    """
    layout = Layout.open(uri, stores)
    try:
        if not layout.is_output():
            raise OutputError(f"output {uri}: no run has written here; name a job's output.uri")
        snapshot = Ledger(layout).snapshot()
        new = snapshot.unfolded()
        return Status(
            output=uri,
            finished=None if snapshot.manifest is None else _finished(snapshot.manifest),
            going_on=_going_on(layout, new),
            commits=len(new),
            pages_committed=_pages(new),
            states=_sum(commit.states for commit in new),
        )
    except OSError as error:
        said = f"output {uri}: cannot be read ({one_line(error)})"
        raise complaint(OutputError, said, error, _mend(uri, stores)) from error


def _mend(uri: str, stores: Stores) -> str:
    if not uri.startswith("s3://") or stores.store(uri).endpoint:
        return ""
    return "; if it is elsewhere, give the job's file in place of the URI, or set AWS_ENDPOINT_URL"


def _finished(manifest: Manifest) -> Finished:
    counts = manifest.counts
    return Finished(
        run_id=manifest.run_id,
        finished_at=clock(manifest.finished_at),
        documents=dict(counts.documents),
        pages=dict(counts.pages),
        failures=dict(counts.failures),
    )


def _going_on(layout: Layout, new: Sequence[Commit]) -> GoingOn | None:
    held = holder(layout)
    if held is None or held.is_over:
        return None
    own = [commit for commit in new if commit.run_id == held.run_id]
    planned, committed = _planned(layout, held.run_id), _pages(own)
    rate = _rate(own, datetime.now(UTC))
    left = None if planned is None else max(0, planned - committed)
    return GoingOn(
        run_id=held.run_id,
        host=held.host,
        since=clock(held.started),
        pages_planned=planned,
        pages_committed=committed,
        states=_sum(commit.states for commit in own),
        failures=_sum(commit.failures for commit in own),
        pages_per_s=round(rate, 3),
        eta_s=round(left / rate, 1) if left is not None and rate else None,
    )


def _planned(layout: Layout, run_id: str) -> int | None:
    """Return the pages that a run has to do; None while it plans, or its list is gone."""
    name = run_file(run_id, "shards")
    if not layout.exists(name):
        return None
    pages = 0
    for table in read_rows(layout, name, ["windows"]):
        windows = table["windows"].combine_chunks().flatten()
        pages += pc.sum(pc.list_value_length(windows.field("page_numbers"))).as_py() or 0
    return pages


def _rate(commits: Sequence[Commit], now: datetime) -> float:
    """Return pages a second, of the last minute or, in a younger run, since its first commit."""
    if not commits:
        return 0.0
    begun = max(commits[0].written_at, now - _RATE_OVER)
    lately = [commit for commit in commits if commit.written_at > begun]
    return _pages(lately) / max((now - begun).total_seconds(), 1.0)


def _pages(commits: Iterable[Commit]) -> int:
    return sum(sum(commit.states.values()) for commit in commits)


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _going_on_lines(run: GoingOn) -> list[str]:
    planned = "planning" if run.pages_planned is None else f"{run.pages_planned:,}"
    lines = [f"going on     run {run.run_id} on {run.host}, since {run.since}"]
    lines.append(
        f"  pages      {run.pages_committed:,} of {planned}"
        + (f", {run.pages_per_s:.2g} pages/s" if run.pages_per_s else "")
        + ("" if run.eta_s is None else f", {timedelta(seconds=round(run.eta_s))} left")
    )
    lines += [f"  {count:,} x {kind}" for kind, count in sorted(run.failures.items())]
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()) if count)
    return f"{sum(counts.values()):,}: {parts}" if parts else "none"
