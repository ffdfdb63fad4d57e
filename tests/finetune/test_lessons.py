"""Tokens and labels: what a run would ask, to the letter, and nothing learned but the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import InputError
from pipeline.finetune.data import Exchange, Row, read_rows
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.learner import Collator, Learner
from pipeline.finetune.lessons import IGNORED, Lesson, Teacher
from pipeline.finetune.samples import Studio, load_tiles
from pipeline.models.base import ModelInput
from pipeline.models.families import family_of, resolve
from pipeline.runners.recipe import prepare
from pipeline.tiles import tile_shapes

MakeJob = Callable[..., FinetuneJob]
MakeTeacher = Callable[[FinetuneJob], tuple[Teacher, Any]]
Teach = Callable[..., tuple[list[Lesson], Any]]

END = "<end_of_utterance>"


@pytest.fixture
def teach(make_teacher: MakeTeacher, tmp_path: Path) -> Teach:
    """Return the lessons of a job's rows, and the model."""

    def lessons(job: FinetuneJob, rows: list[Row] | None = None) -> tuple[list[Lesson], Any]:
        teacher, model = make_teacher(job)
        checkpoint = resolve(job.model)
        encoder = family_of(checkpoint).encoder(checkpoint, job.model)
        with Studio(job.as_run(), encoder, tmp_path, images=True) as studio:
            rows = read_rows(job.data.train) if rows is None else rows
            return [teacher.lesson(row, studio.draw(row)) for row in rows], model

    return lessons


def learned(lesson: Lesson, model: Any) -> list[str]:
    """The stretches of a lesson that are learned, as text."""
    marks = np.flatnonzero(np.diff(np.concatenate([[0], lesson.labels != IGNORED, [0]])))
    stretches = [lesson.labels[a:b] for a, b in marks.reshape(-1, 2)]
    return [model.processor.tokenizer.decode(stretch) for stretch in stretches]


def test_only_the_answer_is_learned_with_its_end(make_job: MakeJob, teach: Teach) -> None:
    lessons, model = teach(make_job())
    assert learned(lessons[0], model) == ['{"shop": "Tea", "total": 0.5, "note": null}' + END]
    assert len({lesson.answer for lesson in lessons}) == 8


def test_what_is_asked_is_to_the_letter_what_a_run_asks(make_job: MakeJob, teach: Teach) -> None:
    for settings in (
        {},
        {"preamble": "Be brief.", "unit": "document"},
        {"prompt": "First {page} then what it prints:\n{text}\nGo."},
    ):
        job = make_job(**settings)
        (lesson, *_), model = teach(job)
        asked = prepare(job.as_run(), "run").prompts[0].replace("\ue000text\ue001", "")
        assert lesson.prompt == asked
        shapes = tile_shapes(load_tiles(lesson.tiles))
        ids = model.tokenized([model.widened(asked, shapes)])["input_ids"][0].tolist()
        assert lesson.ids[: len(ids)].tolist() == ids
        assert not (lesson.labels[: len(ids)] != IGNORED).any()


def test_of_several_turns_the_assistants_are_learned(
    make_job: MakeJob, teach: Teach, slips: Path
) -> None:
    first = Exchange(None, json.loads('{"shop": "Tea", "total": 0.5, "note": null}'))
    turns = (first, Exchange("And the total?", "0.5 EUR"), Exchange("Sure?", "Yes."))
    row = Row("row 1", str(slips / "0.png"), None, turns)
    (lesson,), model = teach(make_job(), [row])
    text = '{"shop": "Tea", "total": 0.5, "note": null}'
    assert learned(lesson, model) == [text + END, "0.5 EUR" + END, "Yes." + END]
    assert "And the total?" in lesson.prompt

    (lesson,), model = teach(make_job(learn_user_turns=True), [row])
    rest = lesson.ids[lesson.labels == IGNORED]  # nothing comes before the first
    named = {"<s>", "<image>", "<fake_token_around_image>"}
    assert set(model.processor.tokenizer.convert_ids_to_tokens(rest.tolist())) == named


def test_a_rows_own_question_is_asked(make_job: MakeJob, teach: Teach, slips: Path) -> None:
    def row(answer: Any, question: str | None = "Which shop?") -> list[Row]:
        return [Row("row 1", str(slips / "0.png"), None, (Exchange(question, answer),))]

    (lesson,), _ = teach(make_job(task="ask"), row("Tea"))
    assert "Which shop?\nAnswer from what" in lesson.prompt
    assert lesson.answer == '{"answer": "Tea"}'
    with pytest.raises(InputError, match="row 1: has no question"):
        teach(make_job(task="ask"), row("Tea", None))
    (lesson,), _ = teach(make_job(task="ocr"), row("Tea 0.50", None))
    assert lesson.answer == "Tea 0.50"
    with pytest.raises(InputError, match="row 1: the model's chat template leaves its question"):
        teach(make_job(task="ask", model={"name": "nano"}), row("Tea"))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"shop": "Tea", "total": "much", "note": None}, r"row 1: does not fit .* \$\.total"),
        ({"shop": "</s>", "total": 1, "note": None}, r"row 1: answer: .* special one \(</s>\)"),
        ("Tea", "row 1: answer: is not JSON"),
    ],
)
def test_an_answer_that_cannot_be_taught_is_named(
    make_job: MakeJob, teach: Teach, slips: Path, answer: Any, complaint: str
) -> None:
    row = Row("row 1", str(slips / "0.png"), None, (Exchange(None, answer),))
    with pytest.raises(InputError, match=complaint):
        teach(make_job(), [row])


def test_pixels_are_those_of_a_run_and_of_the_stock_processor(
    make_job: MakeJob, teach: Teach, slips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons, model = teach(make_job())
    seen: list[torch.Tensor] = []
    encoded = type(model).encoded
    monkeypatch.setattr(
        type(model), "encoded", lambda self, pixels: (seen.append(pixels), encoded(self, pixels))[1]
    )
    learner = Learner(model, model.weights)
    learner(**Collator(0)([(one, load_tiles(one.tiles)) for one in lessons]))
    model.generate([ModelInput(one.prompt, load_tiles(one.tiles)) for one in lessons], 1)
    trained, asked = seen
    assert torch.equal(trained, asked)
    pages = [[Image.open(slips / f"{number}.png")] for number in range(8)]
    stock = model.processor.image_processor(pages, return_tensors="pt")["pixel_values"]
    assert torch.equal(trained, stock[:, 0])


def test_padding_changes_no_loss(make_job: MakeJob, teach: Teach) -> None:
    lessons, model = teach(make_job())
    learner = Learner(model, model.weights)
    pairs = [(one, load_tiles(one.tiles)) for one in sorted(lessons, key=lambda x: len(x.ids))]
    pairs = [pairs[0], pairs[-1]]
    assert len(pairs[0][0].ids) < len(pairs[1][0].ids)
    with torch.no_grad():
        alone = [learner(**Collator(0)([p]), num_items_in_batch=1)["loss"] for p in pairs]
        both = learner(**Collator(0)(pairs), num_items_in_batch=1)["loss"]
    assert float(both) == pytest.approx(float(sum(alone)), rel=1e-5)
