"""How well a reader in training reads: records of validation documents, written greedily."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import torch

from pipeline.evaluation.compare import score_record
from pipeline.evaluation.scores import DocumentScore
from pipeline.evaluation.shape import record_shape
from pipeline.finetune.collate import Collator
from pipeline.finetune.examples import RECEIPT_SCHEMA, Example, Geometry, answer_example
from pipeline.schema import load_schema
from pipeline.synth.words import Split

_BATCH = 32
_LONGEST = 256


def validate(
    model: Any,
    collator: Collator,
    geometry: Geometry,
    count: int,
    split: Split = Split.VALIDATION,
) -> dict[str, float]:
    """Return the share of right values by field, of items and of whole records.

    Reads the first `count` documents of the split's stream, drawn as in training, one page each;
    nothing but the model's own choice shapes the answers.
    """
    shape = record_shape(load_schema(RECEIPT_SCHEMA).document)
    examples = [answer_example(number, geometry, 0.0, split) for number in range(count)]
    scores: list[DocumentScore] = []
    for first in range(0, count, _BATCH):
        batch = examples[first : first + _BATCH]
        for example, text in zip(batch, read(model, collator, batch), strict=True):
            truth = json.loads(example.answer.text if example.answer else "", parse_float=Decimal)
            scores.append(score_record(shape, truth, _record(text)))
    return _shares(scores)


@torch.no_grad()
def read(model: Any, collator: Collator, examples: list[Example]) -> list[str]:
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


def _record(text: str) -> dict[str, Any] | None:
    try:
        record = json.loads(text, parse_float=Decimal)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _shares(scores: list[DocumentScore]) -> dict[str, float]:
    first, *others = scores
    fields, lists = dict(first.fields), dict(first.lists)
    for score in others:
        fields = {path: fields[path] + score.fields[path] for path in fields}
        lists = {path: lists[path] + score.lists[path] for path in lists}
    edits = sum(field.edits for field in fields.values())
    characters = sum(field.characters for field in fields.values())
    return {
        "record": sum(score.exact for score in scores) / len(scores),
        **{path: field.accuracy or 0.0 for path, field in fields.items()},
        **{f"{path} F1": found.f1 or 0.0 for path, found in lists.items()},
        "CER": edits / max(1, characters),
    }
