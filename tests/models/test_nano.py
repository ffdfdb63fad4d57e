"""The bundled reader: what its card says of it, in a small seeded form of `make proof-reading`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from reading import measure
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoTokenizer

from pipeline.evaluation.metrics import edits
from pipeline.job import Job
from pipeline.models.families import BUNDLED
from pipeline.runners.run import Options, run
from pipeline.synth.corpus import corpus_documents, write_corpus
from pipeline.synth.words import Split

NANO = BUNDLED / "nano"

LEAST = {
    "date": 0.9,
    "total": 0.9,
    "currency": 0.9,
    "items[].qty": 0.9,
    "items[].price": 0.9,
    "merchant": 0.8,
    "items F1": 0.8,
    "document": 0.6,
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return measure(documents=24, pairs_wanted=24, seed=1, model="nano", runner="local")


def test_it_is_small_and_of_the_stock_class() -> None:
    assert sum(file.stat().st_size for file in NANO.iterdir()) < 20_000_000
    model = AutoModelForImageTextToText.from_pretrained(NANO)
    assert type(model).__name__ == "Idefics2ForConditionalGeneration"
    assert len(AutoTokenizer.from_pretrained(NANO)) == model.config.text_config.vocab_size
    assert (NANO / "README.md").is_file()


def test_it_reads_what_it_never_saw(found: dict[str, Any]) -> None:
    """Bounds well below the card's figures: these are 24 documents, not 500."""
    pipeline = found["pipeline"]
    for path, least in LEAST.items():
        assert pipeline[path] >= least, (path, pipeline)


def test_the_pipeline_shows_it_what_training_did(found: dict[str, Any]) -> None:
    for path, ours in found["pipeline"].items():
        assert abs(ours - found["loader"][path]) <= 0.05, path


def test_it_reads_pixels_and_does_not_guess(found: dict[str, Any]) -> None:
    followed = {kind: right / total for kind, (right, total) in found["followed"].items()}
    assert followed["digits"] >= 0.85
    assert followed["letters"] >= 0.85
    assert found["shown"] > 0.85
    assert found["other"] < 0.05


def test_it_reads_a_page_as_text_too(found: dict[str, Any], tmp_path: Path) -> None:
    assert found["text_error"] < 0.05
    assert write_corpus(tmp_path, 5, 4, Split.TEST) == 4
    output, said = tmp_path / "out", io.StringIO()
    inputs = {"paths": [str(tmp_path / "documents")]}
    job = Job.model_validate({"input": inputs, "task": "ocr", "output": {"uri": str(output)}})
    assert run(job, Options(runner="local"), Console(file=said)).all_ok
    assert "mean nothing" not in said.getvalue()
    rows = pq.read_table(output / "documents").to_pylist()
    texts = {Path(row["uri"]).stem: row["record"]["text"] for row in rows}
    for one in corpus_documents(5, 4, Split.TEST):
        truth = one.document.pages[0].layout.text
        assert edits(truth, texts[one.name]) < 0.3 * len(truth)


def test_a_receipt_costs_less_than_a_second_of_cpu(found: dict[str, Any]) -> None:
    assert found["cpu_seconds"] < 1
