"""Prompts and answers that do not fit the model's context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.errors import ItemError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Placement
from pipeline.models.families import resolve
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.models.token_by_token import TokenByToken
from pipeline.records import FinishReason, Generation

CONTEXT, ANSWER = 64, 24


def request(n_images: int) -> Request:
    """A prompt of 25 tokens an image, or nearly."""
    noise = np.random.default_rng(n_images)
    tiles = [(noise.integers(0, 256, (42, 56, 3), dtype=np.uint8),) * 2 for _ in range(n_images)]
    return Request("User:" + "<image>" * n_images + "Read.\nAssistant:", tiles, ANSWER)


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Path]) -> Path:
    def edit(model: Any, tokenizer: Any) -> None:
        model.config.text_config.max_position_embeddings = CONTEXT
        model.lm_head.weight.data[tokenizer.eos_token_id] = 0  # answers go on and on

    return make_checkpoint(seed=3, edit=edit)


@pytest.mark.parametrize("wrap", [TokenByToken, lambda whole: whole], ids=["stepping", "static"])
def test_what_does_not_fit_the_context_fails_or_is_cut_alone(
    folder: Path, wrap: Callable[[Idefics2Model], Any]
) -> None:
    settings = ModelSettings(name=str(folder))
    model = wrap(Idefics2Model(resolve(settings), settings, Placement(threads=1)))

    def answer(engine: Engine, *counts: int) -> list[Generation | ItemError]:
        futures = [engine.submit(request(n)) for n in counts]
        found = [(future.exception(timeout=60), future) for future in futures]
        return [error if isinstance(error, ItemError) else f.result() for error, f in found]

    with Engine(model, Limits(batch=3)) as engine:
        short, long, longest = answer(engine, 1, 2, 3)
        alone = [answer(engine, n)[0] for n in (1, 2)]
    assert isinstance(longest, ItemError)
    assert longest.kind == "model_error"
    assert "tokens and an answer of up to 24 do not fit" in longest.message
    assert "context of 64; lower pages_per_sample" in longest.message
    for one, same in zip((short, long), alone, strict=True):
        assert isinstance(one, Generation)
        assert isinstance(same, Generation)
        assert (one.text, one.token_ids) == (same.text, same.token_ids)
        assert one.finish_reason is FinishReason.LENGTH
        assert len(one.token_ids) == len(one.logprobs) == min(ANSWER, CONTEXT - one.prompt_tokens)
    assert len(short.token_ids) == ANSWER
    assert 0 < len(long.token_ids) < ANSWER
