"""A real run beside its truth, from Python and from the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, OutputError
from pipeline.evaluation.compare import score
from pipeline.evaluation.evaluate import evaluate

PAGELAKE = [sys.executable, "-m", "pipeline.cli"]
RAN_OK, USER_ERROR = 0, 2


def pagelake(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PAGELAKE, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def documents_of(run: Any) -> list[dict[str, Any]]:
    (file,) = (run.output / "documents").glob("*.parquet")
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


def test_the_figures_are_those_of_the_rows(
    finished_run: Any, receipt_schema: dict[str, Any], write_truth: Any
) -> None:
    found = evaluate(str(finished_run.output), write_truth(*finished_run.truth), by="kind")
    truth = {Path(line["uri"]).name: line["record"] for line in finished_run.truth}
    each = []
    right = 0
    for row in documents_of(finished_run):
        expected = truth[Path(row["uri"]).name]
        answer = json.loads(row["record_json"]) if row["record"] else None
        each.append(score(receipt_schema, expected, answer))
        total = row["record"] and row["record"]["total"]
        right += total == Decimal(str(expected["total"]))
    assert right > 0
    scores = found.scores
    assert (scores.documents, scores.with_record) == (4, 3)
    assert scores.states == {"ok": 3, "failed": 1}
    assert scores.fields["total"].right == right
    assert scores.fields["total"].places == 4
    assert scores.exact == sum(one.exact for one in each)
    assert scores.anls == pytest.approx(sum(one.anls for one in each) / 4)
    assert {name: one.documents for name, one in found.groups.items()} == {"image": 3, "pdf": 1}


def test_a_truth_taken_from_the_answers_is_read_without_an_error(finished_run: Any) -> None:
    (file,) = (finished_run.output / "documents").glob("*.parquet")
    table = pq.read_table(file)
    ok = table.filter([state == "ok" for state in table["state"].to_pylist()])
    path = finished_run.output.parent / "answers.parquet"
    pq.write_table(ok, path)
    found = evaluate(str(finished_run.output), str(path))
    assert (found.scores.documents, found.scores.exact, found.unlabelled) == (3, 3, 1)
    assert found.scores.anls == pytest.approx(1)


def test_what_either_side_lacks_is_counted(finished_run: Any, write_truth: Any) -> None:
    lost = {**finished_run.truth[0], "uri": "documents/not-there.png"}
    found = evaluate(str(finished_run.output), write_truth(*finished_run.truth[:2], lost))
    assert found.unlabelled == 2
    assert found.scores.states == {"ok": 2, "no row": 1}
    assert found.scores.fields["merchant"].places == 3
    assert found.scores.fields["merchant"].missing == 1


def test_only_committed_files_count(finished_run: Any, write_truth: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished_run.output, output)
    (file,) = (output / "documents").glob("*.parquet")
    shutil.copy(file, file.with_name("not-committed.parquet"))
    found = evaluate(str(output), write_truth(*finished_run.truth))
    assert (found.scores.documents, found.unlabelled) == (4, 0)


def test_one_name_for_two_documents_is_an_error(
    finished_run: Any, write_truth: Any, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished_run.output, output)
    (file,) = (output / "documents").glob("*.parquet")
    table = pq.read_table(file)
    uris = [f"/{i}/same.png" for i in range(table.num_rows)]
    index = table.schema.get_field_index("uri")
    pq.write_table(table.set_column(index, table.schema.field("uri"), [uris]), file)
    with pytest.raises(InputError, match=r"may be /0/same.png or /1/same.png; write more"):
        evaluate(str(output), write_truth({"uri": "same.png", "record": {}}))
    precise = [{"uri": f"{i}/same.png", "record": {}} for i in range(4)]
    assert evaluate(str(output), write_truth(*precise)).unlabelled == 0


def test_files_hold_the_figures_and_every_mismatch(
    finished_run: Any, write_truth: Any, tmp_path: Path
) -> None:
    out = tmp_path / "figures"
    truth = write_truth(*finished_run.truth)
    found = evaluate(str(finished_run.output), truth, by="kind", out=str(out))
    assert json.loads((out / "eval.json").read_text()) == json.loads(found.to_json())
    fields = pq.read_table(out / "fields.parquet").to_pylist()
    overall = {row["field"]: row for row in fields if row["group"] is None}
    assert list(overall) == list(found.scores.fields)
    assert overall["total"]["accuracy"] == found.scores.fields["total"].accuracy
    documents = pq.read_table(out / "documents.parquet").to_pylist()
    assert {row["uri"] for row in documents} == {line["uri"] for line in finished_run.truth}
    correct = sum(one["correct"] for row in documents for one in row["fields"])
    assert correct == sum(one.correct for one in found.scores.fields.values())
    (failed,) = [row for row in documents if row["state"] == "failed"]
    (merchant,) = [one for one in failed["mismatches"] if one["place"] == "merchant"]
    expected = next(line for line in finished_run.truth if line["uri"] == failed["uri"])
    assert merchant["outcome"] == "missing"
    assert (merchant["truth"], merchant["answer"]) == (expected["record"]["merchant"], None)
    assert not list(out.glob("*.tmp"))


def test_an_output_that_is_no_finished_run_is_an_error(write_truth: Any, tmp_path: Path) -> None:
    truth = write_truth({"uri": "a", "record": {}})
    with pytest.raises(OutputError, match="holds no finished run"):
        evaluate(str(tmp_path), truth)
    (tmp_path / "_pagelake").mkdir()
    (tmp_path / "_pagelake" / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match=r"manifest\.json is damaged"):
        evaluate(str(tmp_path), truth)


def test_the_command_prints_a_table_or_json(finished_run: Any, write_truth: Any) -> None:
    arguments = ["eval", str(finished_run.output), "--truth", write_truth(*finished_run.truth)]
    table = pagelake(*arguments, "--by", "kind")
    assert (table.returncode, table.stderr) == (RAN_OK, "")
    for text in ("4: 3 ok, 1 failed", "items[].price", "items F1", "image", "pdf"):
        assert text in table.stdout
    machine = pagelake(*arguments, "--json")
    assert (machine.returncode, machine.stderr) == (RAN_OK, "")
    figures = json.loads(machine.stdout)
    assert figures["states"] == {"ok": 3, "failed": 1}
    assert figures["fields"]["date"]["places"] == 4


def test_a_mistake_is_one_line_and_code_2(finished_run: Any, write_truth: Any) -> None:
    strangers = write_truth({"uri": "elsewhere.png", "record": {}})
    for arguments in (
        [str(finished_run.output), "--truth", strangers],
        [str(finished_run.output), "--truth", "absent.jsonl"],
    ):
        done = pagelake("eval", *arguments)
        assert (done.returncode, done.stdout) == (USER_ERROR, "")
        assert len(done.stderr.splitlines()) == 1
