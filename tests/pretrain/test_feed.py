from __future__ import annotations

import hashlib
from itertools import islice

from pipeline.pretrain.collate import Batch, Collator
from pipeline.pretrain.examples import Geometry
from pipeline.pretrain.feed import Feed, load
from pipeline.pretrain.job import LossWeights, Stage

STAGE = Stage(name="mixed", share=1, dense=0.4, ocr=0.2, weights=LossWeights(answer=1))


def batches(
    collator: Collator,
    geometry: Geometry,
    first: int,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
) -> list[Batch]:
    feed = Feed(STAGE, collator, geometry, 2, first, rank, ranks)
    return list(islice(load(feed, workers), 12))


def pages(made: list[Batch]) -> list[str]:
    return [hashlib.sha256(tile.numpy().tobytes()).hexdigest() for b in made for tile in b.tiles]


def test_a_feed_is_the_same_each_time_and_no_other_has_its_pages(
    collator: Collator, geometry: Geometry
) -> None:
    one = batches(collator, geometry, 0)
    assert pages(one) == pages(batches(collator, geometry, 0))
    others = [
        *batches(collator, geometry, 10**8),
        *batches(collator, geometry, 0, rank=1, ranks=2),
    ]
    assert len(set(pages(one))) == 24
    assert not set(pages(batches(collator, geometry, 0, ranks=2))) & set(pages(others))


def test_ranks_learn_to_write_in_the_same_steps(collator: Collator, geometry: Geometry) -> None:
    first, second = (batches(collator, geometry, 0, rank, ranks=2) for rank in (0, 1))
    wrote = [batch.tokens is not None for batch in first]
    assert wrote == [batch.tokens is not None for batch in second]
    assert {True, False} == set(wrote)


def test_loader_processes_share_the_work(collator: Collator, geometry: Geometry) -> None:
    shared = pages(batches(collator, geometry, 0, workers=2))
    assert len(set(shared)) == 24
