"""The layout that the published checkpoints have, from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.prompting import conversation, parsed

TOKENS = 12


def test_a_checkpoint_as_published_answers_as_the_stock_classes_do(published_folder: Path) -> None:
    asked = ModelSettings(name=str(published_folder), dtype="float32")
    checkpoint = resolve(asked)
    family = family_of(checkpoint)
    model: Any = family.load(checkpoint, asked, Placement())
    prompt = family.prompt(checkpoint, asked, conversation(parsed("Read the page."), 1), "")
    assert prompt == "User: Read the page.<image><end_of_utterance>\nAssistant:"
    page = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    tiles = (family.encoder(checkpoint, asked).encode(page),)
    processor = model._whole.processor
    batch = processor(images=[PIL.Image.fromarray(page)], text=prompt, return_tensors="pt")
    stock = model.weights.generate(**batch, do_sample=False, max_new_tokens=TOKENS)
    expected = stock[0, batch["input_ids"].shape[1] :].tolist()
    (whole,) = model.generate([ModelInput(prompt, tiles)], TOKENS)
    assert list(whole.token_ids) == expected
    assert whole.prompt_tokens == batch["input_ids"].shape[1]
    with Engine(model, Limits(2)) as engine:
        stepped = engine.submit(Request(prompt, tiles, TOKENS)).result(timeout=60)
    assert (stepped.token_ids, stepped.text) == (whole.token_ids, whole.text)


def test_text_that_its_tokenizer_has_no_pieces_for_is_written_in_bytes(
    published_folder: Path,
) -> None:
    asked = ModelSettings(name=str(published_folder))
    model: Any = family_of(resolve(asked)).load(resolve(asked), asked, Placement())
    text = '{"name": "Café ✓ 東京"}'
    ids = model.tokens_of(text)
    assert model.text_of(ids) == text
    written = b"".join(model.vocabulary.tokens[i] for i in ids)
    assert b"\xe6\x9d\xb1" in written or b"<0xE6>" in written
    assert not set(ids) & set(model.vocabulary.special_ids)
