"""How well a reader in training reads: validation documents, answered greedily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pipeline.evaluation.compare import score_record
from pipeline.evaluation.metrics import edits
from pipeline.evaluation.scores import Scores
from pipeline.evaluation.shape import record_shape
from pipeline.lake.exact_json import loads
from pipeline.pretrain.collate import Collator
from pipeline.pretrain.examples import (
    RECEIPT_SCHEMA,
    Example,
    Geometry,
    answer_example,
)
from pipeline.schema import load_schema
from pipeline.synth.words import Split

_BATCH = 32
_LONGEST = 448
_TEXTS = 4
"""Of so many documents one is read as text too, which takes several times as long."""


def validate(model: Any, collator: Collator, geometry: Geometry, count: int) -> dict[str, float]:
    """Return the share of right values by field, of items and of whole records, and error rates.

    Reads the first `count` validation documents, one page each, drawn as in training. `CER` is of
    the record's texts, `text CER` of the page's text, task `ocr`.
    """
    numbers = range(count)
    records = [answer_example(n, geometry, 0.0, Split.VALIDATION) for n in numbers]
    texts = [answer_example(n, geometry, 1.0, Split.VALIDATION) for n in numbers[::_TEXTS]]
    shape = record_shape(load_schema(RECEIPT_SCHEMA).document)
    scores = Scores()
    for truth, answer in _answers(model, collator, records):
        record = _object(answer)
        scores.add(score_record(shape, loads(truth), record), with_record=record is not None)
    wrong = characters = 0
    for truth, answer in _answers(model, collator, texts):
        expected, found = loads(truth)["text"], (_object(answer) or {}).get("text")
        wrong += edits(expected, found if isinstance(found, str) else "")
        characters += len(expected)
    fields = scores.fields
    name_edits = sum(field.edits for field in fields.values())
    return {
        "record": scores.exact_rate or 0.0,
        **{path: field.accuracy or 0.0 for path, field in fields.items()},
        **{f"{path} F1": found.f1 or 0.0 for path, found in scores.lists.items()},
        "CER": name_edits / max(1, sum(field.characters for field in fields.values())),
        "text CER": wrong / max(1, characters),
    }


def _answers(
    model: Any, collator: Collator, examples: Sequence[Example]
) -> Iterator[tuple[str, str]]:
    """Yield what each example should answer, and what the model does."""
    for first in range(0, len(examples), _BATCH):
        batch = examples[first : first + _BATCH]
        for example, answer in zip(batch, read(model, collator, batch), strict=True):
            if example.answer is not None:
                yield example.answer.text, answer


@torch.no_grad()
def read(model: Any, collator: Collator, examples: Sequence[Example]) -> list[str]:
    """Return what the model writes of each example's page, greedily."""
    batch = collator(examples)
    if batch.tokens is None:
        raise ValueError("the examples do not say what to ask")
    prompts = batch.tokens.ids[:, : batch.tokens.start].to(model.device)
    learning = model.training
    model.eval()
    written = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        pixel_values=batch.pixels.to(model.device),
        max_new_tokens=_LONGEST,
        do_sample=False,
    )
    model.train(learning)
    return collator.texts(written[:, batch.tokens.start :])


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
