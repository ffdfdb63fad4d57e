"""The measurement as a user meets it, small; and its parts on random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest

from pipeline.bench.bench import bench
from pipeline.bench.forced import FixedLength, draw_lengths
from pipeline.bench.invoices import SCHEMA_ID, invoice_json, replay
from pipeline.bench.options import Options
from pipeline.bench.report import Report
from pipeline.bench.ways import by_engine, by_generate_batch
from pipeline.bench.workload import make_work
from pipeline.engine.engine import Limits
from pipeline.engine.grammar import Grammar
from pipeline.errors import CheckpointError
from pipeline.models.base import Vocabulary
from pipeline.schema import Validator, load_schema

BYTES = Vocabulary((*(bytes([i]) for i in range(256)), b""), special_ids=(256,), stop_ids=(256,))


def pagelake_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where there is no Ray."""
    code = "import sys; sys.modules['ray'] = None; from pipeline.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_all_ways_give_the_same_answers_and_ratios_are_numbers() -> None:
    done = pagelake_bench("--json", "--samples", "8", "--rounds", "1", "--threads", "1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["same_answers"] == report["samples"] == 8
    for ratio in ("engine_vs_static_ratio", "engine_vs_loop_ratio", "model_vs_floor_ratio"):
        assert report[ratio] > 0
    stages = {row["stage"]: row for row in report["stages"]}
    assert list(stages) == ["rasterize", "encode", "vision", "prefill", "decode", "parse", "write"]
    assert all(row["seconds_a_page"] > 0 for row in stages.values())
    measured = {stage for stage, row in stages.items() if row["utilisation"] is not None}
    assert measured == {"vision", "prefill", "decode"}
    assert all(0 < stages[stage]["utilisation"] < 1 for stage in measured)
    assert report["dtype"] == "float32"
    assert report["device"] == "cpu"
    assert report["grammar"] is None
    assert len(report["every"]["engine_without_guesses"]) == 1
    assert report["generate_batch_slots"] == 8
    assert len(report["every"]["generate_batch"]) == 1


def test_transformers_own_continuous_batching_reads_the_same_from_images(tmp_path: Path) -> None:
    work = make_work(tmp_path, "nano", 4, 0, threads=1)
    found = by_generate_batch(work, slots=2).answers  # so that some wait, and join others
    assert found == by_engine(replace(work, grammar=None), Limits(4)).answers
    assert len(set(found)) == 4


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "roofline.svg"


@pytest.fixture(scope="module")
def report(picture: Path) -> Report:
    options = Options(
        random_weights="tiny",
        splitting=False,
        answer_tokens=24,
        samples=8,
        rounds=1,
        slots=3,
        plot=picture,
    )
    return bench(options, lambda _: None)


def test_random_weights_give_answers_of_forced_lengths(report: Report) -> None:
    lengths = draw_lengths(8, 24, seed=0)
    answers = report.answers
    assert answers.output_tokens == fmean(lengths)
    assert answers.passes_a_page == fmean(lengths)
    assert answers.output_tokens_cv == pytest.approx(pstdev(lengths) / fmean(lengths))
    assert answers.same_answers == 8
    assert answers.guessed_share == 0
    assert report.setup.forced_lengths
    assert report.seconds_a_page.engine_without_guesses is None
    assert report.seconds_a_page.generate_batch is not None
    json.dumps(report.to_json(), allow_nan=False)


def test_the_grammar_spares_a_real_tokenizer_most_passes(report: Report) -> None:
    grammar = report.grammar
    assert grammar is not None
    assert grammar.vocabulary == 32_000
    assert grammar.passes_per_token <= 0.6
    # Each token is chosen in a pass or forced; the stop token needs no pass of its own here.
    assert grammar.passes_per_token + grammar.forced_share == pytest.approx(1)


def test_the_roofline_is_drawn(report: Report, picture: Path) -> None:
    drawn = picture.read_text()
    assert drawn.startswith("<?xml")
    assert "</svg>" in drawn


def test_lengths_are_as_asked_for() -> None:
    lengths = draw_lengths(2000, 300, seed=1)
    assert fmean(lengths) == pytest.approx(300, rel=0.05)
    assert pstdev(lengths) / fmean(lengths) == pytest.approx(0.4, rel=0.1)
    assert min(lengths) == 16
    assert lengths[:5] == draw_lengths(5, 300, seed=1)


def test_a_fixed_length_ends_with_the_stop_token_and_not_before() -> None:
    answer = FixedLength(BYTES, 2)
    for _ in range(2):
        assert np.flatnonzero(~answer.allowed()).tolist() == [256]
        answer.accept(65)
    assert np.flatnonzero(answer.allowed()).tolist() == [256]


def test_a_replay_counts_what_is_forced_and_what_is_chosen() -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    grammar = Grammar(schema, BYTES, compact=True)
    found = replay(grammar, list(b'{"ok":true}'))
    # One choice: true or false.
    assert (found.tokens, found.forced, found.passes) == (11, 10, 1)
    with pytest.raises(ValueError, match="is forced"):
        replay(grammar, list(b'{"no":true}'))


def test_made_invoices_fit_the_schema() -> None:
    validator = Validator(load_schema(SCHEMA_ID).document)
    for number in range(50):
        assert validator.violation(json.loads(invoice_json(f"test {number}"))) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--random-weights", "huge"), "there is no shape 'huge'"),
        (("--random-weights", "tiny", "--model", "nano"), "choose one of them"),
        (("--answer-tokens", "20"), "--random-weights"),
        (("--plot", "roofline.txt"), "should end in .svg"),
        (("--plot", "no/such/folder.svg"), "there is no folder 'no/such'"),
    ],
)
def test_bad_options_are_told_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = pagelake_bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_model_whose_costs_are_unknown_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "smolvlm"}')
    with pytest.raises(CheckpointError, match=r"is a 'smolvlm' model; bench knows .* idefics2$"):
        bench(Options(model=str(tmp_path)), lambda _: None)


def test_a_model_that_is_not_there_is_a_users_error() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at 'nothing'"):
        bench(Options(model="nothing"), lambda _: None)
