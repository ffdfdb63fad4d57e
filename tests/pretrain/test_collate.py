from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.pretrain.collate import IGNORED, Collator
from pipeline.pretrain.examples import Geometry, answer_example, dense_example
from pipeline.pretrain.tracing import NOWHERE


def test_only_the_answer_is_learned(processor: Any, collator: Collator, geometry: Geometry) -> None:
    examples = [answer_example(number, geometry, 0.5) for number in range(6)]
    tokens = collator(examples).tokens
    assert tokens is not None
    special = processor.tokenizer.convert_tokens_to_ids(["<pad>", "<image>"])
    for example, ids, labels in zip(examples, tokens.ids, tokens.labels, strict=True):
        learned = labels != IGNORED
        assert torch.equal(ids[learned], labels[learned])
        assert not set(special) & set(labels[learned].tolist())
        assert not learned[: tokens.start].any()
        assert int(labels[learned][-1]) == processor.tokenizer.eos_token_id
        assert example.answer is not None
        assert processor.tokenizer.decode(labels[learned][:-1]) == example.answer.text
        assert (ids[: tokens.start] == special[1]).sum() == 192


def test_tokens_point_at_patches(collator: Collator, geometry: Geometry) -> None:
    example = answer_example(3, geometry, 0.0)
    assert example.answer is not None
    ids, patches = collator.tokenize(example.answer)
    assert len(ids) == len(patches)
    merchant = json.loads(example.answer.text)["merchant"]
    assert patches[0] == NOWHERE
    assert patches[1 : 1 + len(merchant)] == list(example.answer.patches[13 : 13 + len(merchant)])
    assert NOWHERE not in patches[1 : 1 + len(merchant)]


def test_pixels_are_those_of_the_stock_processor(
    processor: Any, collator: Collator, geometry: Geometry
) -> None:
    example = dense_example(5, geometry)
    page = Image.fromarray(example.tile[:, :, 0])
    stock = processor.image_processor(page, return_tensors="np")["pixel_values"]
    assert np.array_equal(stock, collator([example]).pixels.numpy())


def test_a_batch_asks_of_all_pages_or_of_none(collator: Collator, geometry: Geometry) -> None:
    with pytest.raises(ValueError, match="all of its pages or for none"):
        collator([dense_example(1, geometry), answer_example(1, geometry, 0.0)])
    assert collator([dense_example(1, geometry)]).tokens is None
