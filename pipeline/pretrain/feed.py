"""An endless stream of training batches, the same for the same seed, rank and number of ranks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.pretrain.collate import Batch, Collator
from pipeline.pretrain.examples import Example, Geometry, answer_example, dense_example
from pipeline.pretrain.job import Stage

_BATCHES_SORTED = 4
"""Answers of so many batches are sorted by length, so that there is little padding."""

LONGEST_ANSWER = 416
"""In tokens; the few longer ones (pages full of text) would cost too much padding."""


class Feed(IterableDataset[Batch]):
    """Batches of one stage. Every rank and loader process makes documents of its own.

    `first` is the number of the first document; no two stages of a job should share numbers.
    """

    def __init__(
        self,
        stage: Stage,
        collator: Collator,
        geometry: Geometry,
        batch: int,
        first: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._stage = stage
        self._collator = collator
        self._geometry = geometry
        self._batch = batch
        self._first, self._rank, self._ranks = first, rank, ranks

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        workers = 1 if worker is None else worker.num_workers
        lane = self._rank * workers + (0 if worker is None else worker.id)
        numbers = count(self._first + lane, self._ranks * workers)
        # The same on all ranks: in one step either all have answers to learn from, or none.
        rng = random.Random(f"feed {self._first} {0 if worker is None else worker.id}")
        while True:
            yield from self._round(numbers, rng)

    def _round(self, numbers: Iterator[int], rng: random.Random) -> Iterator[Batch]:
        batches: list[list[Example]] = []
        kinds = [rng.random() < self._stage.dense for _ in range(_BATCHES_SORTED)]
        for _ in range(sum(kinds)):
            batches.append(
                [dense_example(next(numbers), self._geometry) for _ in range(self._batch)]
            )
        wanted = (len(kinds) - sum(kinds)) * self._batch
        answers: list[tuple[int, int, Example]] = []
        while len(answers) < wanted:
            number = next(numbers)
            example = answer_example(number, self._geometry, self._stage.ocr)
            length = len(self._collator.tokenize(example.answer)[0]) if example.answer else 0
            if length <= LONGEST_ANSWER:
                answers.append((length, number, example))
        answers.sort(key=lambda answer: answer[:2])
        for start in range(0, wanted, self._batch):
            batches.append([example for _, _, example in answers[start : start + self._batch]])
        rng.shuffle(batches)
        yield from map(self._collator, batches)


def load(feed: Feed, workers: int) -> Iterator[Batch]:
    """Iterate over a feed, in `workers` processes of their own, or in this one for 0."""
    ahead = 8 if workers else None
    return iter(DataLoader(feed, batch_size=None, num_workers=workers, prefetch_factor=ahead))
