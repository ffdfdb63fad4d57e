"""How well a model in training answers: documents it does not learn from, answered greedily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from pipeline.engine.grammar import Grammar
from pipeline.evaluation.compare import score_record
from pipeline.evaluation.metrics import edits
from pipeline.evaluation.scores import Scores
from pipeline.evaluation.shape import record_shape
from pipeline.finetune.learner import Collator, Learner
from pipeline.finetune.lessons import Lesson
from pipeline.finetune.samples import load_tiles
from pipeline.lake.exact_json import loads
from pipeline.models.base import ModelInput
from pipeline.schema import Schema


class Examiner:
    """Measures a learner by lessons that it does not learn.

    `grammars` hold answers to the schema, by whether they are about a whole document; none leaves
    them free.
    """

    def __init__(
        self,
        lessons: Sequence[Lesson],
        schema: Schema,
        grammars: Mapping[bool, Grammar],
        collator: Collator,
        batch: int,
        max_new_tokens: int,
    ) -> None:
        self._lessons, self._grammars, self._collator = lessons, grammars, collator
        self._batch, self._most = batch, max_new_tokens
        self._shape = record_shape(schema.document)

    def measure(self, learner: Learner) -> dict[str, float]:
        """Return what `pagelake eval` counts, by name, and the mean `loss`; {} without lessons.

        `record` is the share of records without an error, a field's name the share of its right
        values, `CER` the characters of texts to change.
        """
        if not self._lessons:
            return {}
        learning = learner.training
        learner.eval()
        try:
            return {"loss": self._loss(learner), **self._scores(learner)}
        finally:
            learner.train(learning)

    @torch.no_grad()
    def _loss(self, learner: Learner) -> float:
        total = tokens = 0.0
        for lessons in self._batches():
            batch = self._collator([(one, load_tiles(one.tiles)) for one in lessons])
            device = next(learner.parameters()).device
            moved = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
            total += float(learner(**moved, num_items_in_batch=1)["loss"])
            tokens += int((batch["labels"][:, 1:] >= 0).sum())
        return total / max(1, tokens)

    def _scores(self, learner: Learner) -> dict[str, float]:
        scores, wrong, characters = Scores(), 0, 0
        for lesson, text in self._answers(learner):
            truth = _object(lesson.answer)
            if truth is None:
                wrong += edits(lesson.answer, text.strip())
                characters += len(lesson.answer)
            else:
                record = _object(text)
                scores.add(score_record(self._shape, truth, record), with_record=record is not None)
        found: dict[str, float] = {"CER": wrong / characters} if characters else {}
        if scores.documents:
            found["record"] = scores.exact_rate or 0.0
            found["ANLS*"] = scores.anls or 0.0
            found.update({path: one.accuracy or 0.0 for path, one in scores.fields.items()})
            found.update({f"{path} F1": one.f1 or 0.0 for path, one in scores.lists.items()})
        return found

    def _answers(self, learner: Learner) -> Iterator[tuple[Lesson, str]]:
        for lessons in self._batches():
            inputs = [self._input(lesson) for lesson in lessons]
            outputs = learner.whole.generate(inputs, self._most)
            yield from zip(lessons, (output.text for output in outputs), strict=True)

    def _input(self, lesson: Lesson) -> ModelInput:
        constraint = None
        if self._grammars and _object(lesson.answer) is not None:
            constraint = self._grammars[lesson.whole].start()
        return ModelInput(lesson.prompt, load_tiles(lesson.tiles), constraint)

    def _batches(self) -> Iterator[Sequence[Lesson]]:
        for first in range(0, len(self._lessons), self._batch):
            yield self._lessons[first : first + self._batch]


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
