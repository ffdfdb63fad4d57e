"""From examples to one padded batch, with every label that must not be learned masked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models.pixels import pixel_table
from pipeline.pretrain.examples import Answer, Example
from pipeline.pretrain.tracing import NOWHERE

IGNORED = -100
"""The label of tokens that no loss counts: padding, images and the prompt."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Prompts and answers of a batch, padded on the right.

    All int64 (batch, length): `ids`; `labels`, `IGNORED` but for the answer's tokens; `patches`,
    the patch that each answer token is read from, or `NOWHERE`. The answers begin at `start`.
    """

    ids: Tensor
    labels: Tensor
    patches: Tensor
    start: int


@dataclass(frozen=True, slots=True)
class Batch:
    """`tiles` uint8 (batch, height, width, 1 or 3); `characters` int64 (batch, patches, slots).

    `levels`, float32 (3, 256), is what the image processor makes of each byte, by channel.
    """

    tiles: Tensor
    levels: Tensor
    characters: Tensor
    tokens: Tokens | None

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def pixels(self) -> Tensor:
        """The model's input, float32 (batch, 1, 3, height, width)."""
        last = self.tiles.shape[3] - 1
        channels = [
            table[self.tiles[..., min(channel, last)].int()]
            for channel, table in enumerate(self.levels)
        ]
        return torch.stack(channels, dim=1).unsqueeze(1)


class Collator:
    """Makes batches for one processor; `prompts` are the rendered prompts by schema id.

    Every prompt must come to the same number of tokens.
    """

    def __init__(self, processor: Any, prompts: Mapping[str, str]) -> None:
        self._tokenizer = processor.tokenizer
        self._levels = torch.from_numpy(pixel_table(processor.image_processor))
        self._prompts = {
            schema_id: processor(text=[prompt])["input_ids"][0]
            for schema_id, prompt in prompts.items()
        }
        if len({len(ids) for ids in self._prompts.values()}) > 1:
            raise ValueError("the prompts differ in length")

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Collate examples of one tile size, either all with answers or all without."""
        tiles = torch.from_numpy(np.stack([example.tile for example in examples]))
        characters = torch.from_numpy(np.stack([example.characters for example in examples]))
        answers = [example.answer for example in examples if example.answer is not None]
        if len(answers) not in (0, len(examples)):
            raise ValueError("a batch has answers for all of its pages or for none")
        return Batch(tiles, self._levels, characters, self._tokens(answers) if answers else None)

    @cached_property
    def prompt_length(self) -> int:
        """Tokens of a prompt."""
        return len(next(iter(self._prompts.values())))

    def _tokens(self, answers: Sequence[Answer]) -> Tokens:
        written = [self.tokenize(answer) for answer in answers]
        start, longest = self.prompt_length, max(len(ids) for ids, _ in written)
        ids = torch.full((len(answers), start + longest), self._tokenizer.pad_token_id)
        labels = torch.full_like(ids, IGNORED)
        patches = torch.full_like(ids, NOWHERE)
        for row, (answer, (tokens, places)) in enumerate(zip(answers, written, strict=True)):
            end = start + len(tokens)
            ids[row, :start] = torch.tensor(self._prompts[answer.schema_id])
            ids[row, start:end] = labels[row, start:end] = torch.tensor(tokens)
            patches[row, start:end] = torch.tensor(places)
        return Tokens(ids, labels, patches, start)

    def texts(self, ids: Tensor) -> list[str]:
        """Return the texts of token ids, int64 (batch, length), up to the end of sequence."""
        eos = self._tokenizer.eos_token_id
        rows = (row[: row.index(eos)] if eos in row else row for row in ids.tolist())
        return [self._tokenizer.decode(row, skip_special_tokens=False) for row in rows]

    def tokenize(self, answer: Answer) -> tuple[list[int], list[int]]:
        """Return the answer's token ids, the end of sequence included, and the patch of each."""
        encoding = self._tokenizer(
            answer.text, add_special_tokens=False, return_offsets_mapping=True
        )
        patches = [
            next((p for p in answer.patches[first:last] if p != NOWHERE), NOWHERE)
            for first, last in encoding["offset_mapping"]
        ]
        return [*encoding["input_ids"], self._tokenizer.eos_token_id], [*patches, NOWHERE]
