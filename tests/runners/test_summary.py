"""A summary that another process printed is told like one's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.job import Job
from pipeline.runners.summary import Summary


def told(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=100)
    summary.print(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("output", [{}, {"format": "delta"}])
def test_it_comes_back_from_its_json(
    make_job: Callable[..., Job],
    run_job: Callable[..., Summary],
    demo: Path,
    output: dict[str, str],
) -> None:
    settings = {"task": "ocr", "model": {"family": "fake", "name": "fake?edge=224"}}
    job = make_job([demo / "documents" / "image-01.png"], **settings, schema="text.v1")
    job = job.model_copy(update={"output": job.output.model_copy(update=output)})
    summary = run_job(job)
    back = Summary.from_json(summary.to_json())
    assert back.table == summary.table
    assert told(back) == told(summary)


def test_what_is_no_summary_is_refused() -> None:
    for text in ("{}", "[]", '{"done": {}}', '{"done": {}, "table": {"x": 1}}'):
        with pytest.raises(ValueError, match="it is no summary"):
            Summary.from_json(text)
