"""The model as it learns: fed as in a run, with gradients; and the loss of what it should say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from pipeline.finetune.lessons import IGNORED, Lesson
from pipeline.finetune.samples import load_tiles
from pipeline.models.image_text import ImageTextModel
from pipeline.records import Tiles

Batch = dict[str, Any]
"""`ids`, `labels` and `mask`, int64 (rows, tokens), padded on the right; `tiles`, row by row."""


class Lessons(Dataset[tuple[Lesson, Tiles]]):
    """Lessons with their tiles, read when they are asked for."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._lessons = lessons

    def __len__(self) -> int:
        return len(self._lessons)

    def __getitem__(self, index: int) -> tuple[Lesson, Tiles]:
        lesson = self._lessons[index]
        return lesson, load_tiles(lesson.tiles)


class Collator:
    """Makes batches of lessons."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, lessons: Sequence[tuple[Lesson, Tiles]]) -> Batch:
        """Return a batch, padded with `pad` on the right."""
        longest = max(len(lesson.ids) for lesson, _ in lessons)

        def padded(rows: Sequence[Any], with_: int) -> Tensor:
            filled = np.full((len(rows), longest), with_, np.int64)
            for target, row in zip(filled, rows, strict=True):
                target[: len(row)] = row
            return torch.from_numpy(filled)

        ids = [lesson.ids for lesson, _ in lessons]
        return {
            "ids": padded(ids, self._pad),
            "labels": padded([lesson.labels for lesson, _ in lessons], IGNORED),
            "mask": padded([np.ones_like(row) for row in ids], 0),
            "tiles": [tiles for _, tiles in lessons],
        }


class Learner(nn.Module):
    """Runs a batch through the very methods that a run feeds the model by.

    So the pixels are those of a run, nothing of an image is padding, and each family takes part
    that has an `ImageTextModel`. `model` is its weights, or peft's model of them.
    """

    def __init__(self, whole: ImageTextModel, model: Any) -> None:
        super().__init__()
        self.whole, self.model = whole, model

    def forward(
        self, ids: Tensor, labels: Tensor, mask: Tensor, tiles: Sequence[Tiles], **counts: Any
    ) -> dict[str, Tensor]:
        """Return the mean loss of the labels, or their sum by `num_items_in_batch` if given."""
        features = self.whole.features([tile for row in tiles for page in row for tile in page])
        shown = self.whole.taught(ids, [len(row) for row in tiles], features)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **shown).logits
        following = labels[:, 1:]
        learned = following != IGNORED
        total = cross_entropy(logits[:, :-1][learned].float(), following[learned], reduction="sum")
        items = counts.get("num_items_in_batch")
        return {"loss": total / (learned.sum().clamp(min=1) if items is None else items)}
