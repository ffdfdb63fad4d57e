"""What all tests share: one Ray, the demo's documents, and a way to read a table's rows."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from s3_server import KEYS, S3Server, s3_server

# One thread a model: tests share their cores with Ray, and the small model gains nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DEMO = Path(__file__).parent.parent / "jobs" / "demo"

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A private Ray with more cores than most test machines have, so that stages overlap."""
    import ray

    import pipeline.runners.ray_data  # noqa: F401  # sets what Ray reads on import

    with pytest.MonkeyPatch.context() as environment:
        for name, value in KEYS.items():  # workers have the environment that Ray began in
            environment.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=200 << 20,
            resources={"reader": 1, "drawer": 1},  # what machines of a cluster may be told apart by
            include_dashboard=False,
            # As in a Ray of the runner's own; workers that stay spare the next test their start.
            _system_config={
                "idle_worker_killing_time_threshold_ms": 600_000,
                "task_events_report_interval_ms": 0,
                "metrics_report_interval_ms": 1000,  # a test waits for them
            },
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def demo() -> Path:
    """The folder of the demo: documents/ and truth.jsonl."""
    return DEMO


@pytest.fixture(scope="session")
def rows() -> Callable[[Path | str, str], Rows]:
    """Read a table of an output as a reader with a plain glob would."""

    def read(output: Path | str, table: str) -> Rows:
        files = sorted(str(path) for path in (Path(output) / table).glob("*.parquet"))
        if not files:
            return []
        found: Rows = ds.dataset(files).to_table().to_pylist(maps_as_pydicts="strict")
        return found

    return read


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[S3Server]:
    """A real S3 endpoint in a process of its own, shared by all tests."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_endpoint: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The endpoint, with its keys in the environment."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return s3_endpoint
