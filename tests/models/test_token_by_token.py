"""Token by token as a whole: shared keys, and attention within a window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.decoder import Decoder, UnknownDecoder
from pipeline.models.families import family_of, resolve
from pipeline.models.token_by_token import TokenByToken
from pipeline.records import Image

LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
PROMPTS = [
    "User:<image>Read this.<end_of_utterance>\nAssistant:",
    "User:<image><image>Read both of these.<end_of_utterance>\nAssistant:",
    "User: Say all you know of what stands in the schema, please, word by word:<image>Go.",
    "User: Say all you know of what stands in the schema, please, word by word:<image>Go on.",
]


def page(seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (42, 56, 3), dtype=np.uint8)


@pytest.mark.parametrize("window", [None, 7, 24])
@pytest.mark.parametrize("fixed_steps", [False, True])
def test_answers_are_as_generates(
    make_checkpoint: Any, window: int | None, fixed_steps: bool
) -> None:
    def edit(model: Any, tokenizer: Any) -> None:
        model.config.text_config.sliding_window = window
        model.lm_head.weight.data[tokenizer.eos_token_id] = 0

    folder = make_checkpoint(splitting=False, seed=3, edit=edit)
    settings = ModelSettings(name=str(folder))
    checkpoint = resolve(settings)
    model = family_of(checkpoint).load(checkpoint, settings, Placement(threads=1))
    assert isinstance(model, TokenByToken)
    assert model.decoder.shape.groups == 2
    assert model.decoder.shape.window == window
    tiles = [
        tuple((page(10 * number + image),) for image in range(prompt.count("<image>")))
        for number, prompt in enumerate(PROMPTS)
    ]
    inputs = [ModelInput(prompt, tiles[i]) for i, prompt in enumerate(PROMPTS)]
    expected = [model.generate([one], 40)[0] for one in inputs]
    assert max(len(one.token_ids) for one in expected) == 40
    with Engine(model, Limits(3, fixed_steps=fixed_steps)) as engine:
        futures = [engine.submit(Request(one.prompt, one.tiles, 40)) for one in inputs]
        found = [future.result(timeout=60) for future in futures]
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


SHOT = (
    "User:<image>Read this.<end_of_utterance>\nAssistant:{}<end_of_utterance>\n"
    "User:<image><image>Read this.<end_of_utterance>\nAssistant:{}<end_of_utterance>\n"
)
ASKED = [
    SHOT + "User:<image>Read this.<end_of_utterance>\nAssistant:",
    SHOT + "User:<image>Read this.<end_of_utterance>\nAssistant:",
    SHOT + "User:Look:<image>and<image>Read this.<end_of_utterance>\nAssistant:",
    SHOT + "User:Nothing to see.<end_of_utterance>\nAssistant:",
]


@pytest.mark.parametrize("splitting", [False, True])
def test_examples_are_read_once_and_answers_are_as_generates(
    make_checkpoint: Any, splitting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(name=str(make_checkpoint(splitting=splitting, seed=3)))
    checkpoint = resolve(settings)
    model = family_of(checkpoint).load(checkpoint, settings, Placement(threads=1))
    encoder = family_of(checkpoint).encoder(checkpoint, settings)
    images = iter([encoder.encode(page(seed)) for seed in range(100)])
    keys = {"a": [next(images) for _ in range(3)], "b": [next(images) for _ in range(3)]}
    requests = [
        Request(
            prompt,
            [next(images) for _ in range(prompt.count("<image>") - 3)],
            24,
            examples=examples,
            examples_key=key,
        )
        for prompt in ASKED
        for key, examples in keys.items()
    ]
    expected = [
        model.generate([ModelInput(one.prompt, one.all_tiles)], 24)[0].token_ids for one in requests
    ]
    assert len(set(expected)) == len(expected)
    seen: list[int] = []
    features = type(model).features

    def counted(self: Any, tiles: Any) -> Any:
        seen.append(len(tiles))
        return features(self, tiles)

    monkeypatch.setattr(type(model), "features", counted)
    with Engine(model, Limits(3)) as engine:
        futures = [engine.submit(one) for one in requests]
        found = [future.result(timeout=60).token_ids for future in futures]
    assert found == expected
    own = sum(len(one.tiles) for one in requests)
    assert sum(seen) == (own + 2 * 3) * (5 if splitting else 1)


def test_a_pages_own_text_is_no_common_beginning(make_checkpoint: Any) -> None:
    settings = ModelSettings(name=str(make_checkpoint(splitting=False)))
    checkpoint = resolve(settings)
    model: Any = family_of(checkpoint).load(checkpoint, settings, Placement(threads=1))
    tiles, prompt = [[page(0)]], "User: It says a great many words, all of its own:<image>Read."
    assert model.tokenize(prompt, tiles, 0).shared > 16
    assert model.tokenize(prompt, tiles, 0, alike=False).shared == 0
    shown = [[page(1)], *tiles]
    own = model.tokenize("User:<image>Yes." + prompt, shown, 1, alike=False)
    assert 0 < own.shared < model.tokenize("User:<image>Yes." + prompt, shown, 1).shared


@pytest.mark.parametrize(
    ("kind", "more", "known"),
    [("linear", {}, True), ("llama3", LLAMA_3, True), ("yarn", {}, False), ("dynamic", {}, False)],
)
def test_rotary_positions_run_if_their_frequencies_are_fixed(
    kind: str, more: dict[str, float], known: bool
) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 8.0, **more}
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=8,
        max_position_embeddings=2048,
        rope_parameters=rope,
    )
    text_model = LlamaModel(config).eval()
    if not known:
        with pytest.raises(UnknownDecoder, match=kind):
            Decoder(text_model, torch.nn.Identity())
        return
    decoder = Decoder(text_model, torch.nn.Identity())
    embedded, positions = torch.randn(5, 16), torch.arange(300, 305)

    def attend(_: int, queries: Any, keys: Any, values: Any) -> Any:
        turned = [part.transpose(0, 1) for part in (queries, keys, values)]
        attended = torch.nn.functional.scaled_dot_product_attention(*turned, is_causal=True)
        return attended.transpose(0, 1)

    with torch.inference_mode():
        stock = text_model(inputs_embeds=embedded[None], position_ids=positions[None])[0][0]
        assert torch.allclose(decoder.forward(embedded, positions, attend), stock, atol=1e-5)
