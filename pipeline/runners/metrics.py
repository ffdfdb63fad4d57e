"""What a run through Ray tells those who watch it: counts and gauges at each node's metrics port.

Prometheus sees each name as `ray_pagelake_...`, with labels that Ray adds: node, worker, session.
All is told once a commit or a call, never a token, so that it costs microseconds a page.
docs/MONITORING.md says what each one means. `ray` is loaded when the first is told, not before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.records import Answer, Failed
from pipeline.runners.receipt import Receipt

_COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "stage_pages_total": ("Pages that have left a stage, failed ones too.", ("stage",)),
    "stage_seconds_total": ("Seconds of work in a stage for pages now finished.", ("stage",)),
    "pages_finished_total": ("Pages committed, by how they ended.", ("state",)),
    "documents_finished_total": ("Documents whose last page is committed.", ()),
    "failures_total": ("Pages committed as failed, by why.", ("kind",)),
    "prompt_tokens_total": ("Tokens of the prompts of samples committed.", ()),
    "output_tokens_total": ("Tokens of the answers committed.", ()),
    "model_seconds_total": ("Seconds in which a model was at work.", ()),
    "model_restarts_total": ("Model processes that died or were ended.", ()),
}
_GAUGES: Mapping[str, str] = {
    "documents_planned": "Documents that the run has to do; 0 when none goes on.",
    "pages_planned": "Pages that the run has to do; 0 when none goes on.",
    "pages_left": "Pages that the run has still to commit; 0 when none goes on.",
    "eta_seconds": "Seconds until all pages are committed, at the mean speed so far.",
    "queue_depth": "Samples that an actor holds and has not answered yet.",
}
NAMES = tuple(f"pagelake_{name}" for name in (*_COUNTERS, *_GAUGES))
"""All metrics that a run may tell."""


class RunMetrics:
    """What the driver knows. The gauges are those of the run that goes on."""

    def __init__(self, job: str, documents: int, pages: int) -> None:
        self._job = job
        self._left = self._pages = pages
        self._started = time.monotonic()
        _set(job, "documents_planned", documents)
        _set(job, "pages_planned", pages)
        _set(job, "pages_left", pages)

    def committed(self, receipt: Receipt) -> None:
        """Count a commit."""
        self._left -= receipt.pages
        done, elapsed = self._pages - self._left, time.monotonic() - self._started
        _set(self._job, "pages_left", self._left)
        _set(self._job, "eta_seconds", elapsed * self._left / max(done, 1))
        count_pages(self._job, "write", receipt.pages)
        _add(self._job, "documents_finished_total", receipt.documents)
        _add(self._job, "prompt_tokens_total", receipt.prompt_tokens)
        _add(self._job, "output_tokens_total", receipt.output_tokens)
        for stage, seconds in receipt.seconds.items():
            _add(self._job, "stage_seconds_total", seconds, stage=stage)
        for state, pages in receipt.states.items():
            _add(self._job, "pages_finished_total", pages, state=state)
        for kind, pages in receipt.kinds.items():
            _add(self._job, "failures_total", pages, kind=kind)

    def ended(self) -> None:
        """Say that no run goes on, however this one ended."""
        for name in ("documents_planned", "pages_planned", "pages_left", "eta_seconds"):
            _set(self._job, name, 0)


class ModelMetrics:
    """What an actor with a model knows. Thread-safe."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._queued = self._restarts = 0

    @contextmanager
    def queued(self, samples: int) -> Iterator[None]:
        """Count samples as waiting for as long as the block takes."""
        self._queue(samples)
        try:
            yield
        finally:
            self._queue(-samples)

    def answered(self, answers: Sequence[Answer | Failed], restarts: int) -> None:
        """Count answers, and the model's processes that ended: so many since the actor began."""
        count_pages(self._job, "generate", sum(len(one.id.page_numbers) for one in answers))
        seconds = sum(one.generation.model_s for one in answers if isinstance(one, Answer))
        _add(self._job, "model_seconds_total", seconds)
        with self._lock:
            new = restarts - self._restarts
            self._restarts = max(restarts, self._restarts)
        _add(self._job, "model_restarts_total", new)

    def _queue(self, samples: int) -> None:
        with self._lock:
            self._queued += samples
            _set(self._job, "queue_depth", self._queued)


def count_pages(job: str, stage: str, pages: int) -> None:
    """Count pages that leave a stage."""
    _add(job, "stage_pages_total", pages, stage=stage)


def _add(job: str, name: str, value: float, **tags: str) -> None:
    if value > 0:  # Ray counts nothing else
        _counter(name).inc(value, {"job_name": job, **tags})


def _set(job: str, name: str, value: float) -> None:
    _gauge(name).set(value, {"job_name": job})


@cache
def _counter(name: str) -> Any:
    from ray.util.metrics import Counter

    told, tags = _COUNTERS[name]
    return Counter(f"pagelake_{name}", told, tag_keys=("job_name", *tags))


@cache
def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(f"pagelake_{name}", _GAUGES[name], tag_keys=("job_name",))
