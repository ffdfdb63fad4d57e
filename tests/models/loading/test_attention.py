"""Which attention runs, and that answers do not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.attention import Facts, choose_attention, facts
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.records import Image

FLASH = "flash_attention_2"
H100, T4, CPU = Facts((9, 0)), Facts((7, 5)), Facts(None)
NO_PACKAGE = Facts((8, 0), "needs the flash-attn package")
FOREIGN = Facts((9, 0), in_model=False)
PROMPTS = [
    "User:<image>Read this.<end_of_utterance>\nAssistant:",
    "User:<image>then<image>Read both of these, please.<end_of_utterance>\nAssistant:",
    "User:<image><image><image>Go.<end_of_utterance>\nAssistant:",
]
SIZES = [(112, 84), (42, 112), (60, 60), (112, 112), (84, 112), (43, 57)]


@pytest.mark.parametrize(
    ("asked", "dtype", "found", "chosen"),
    [
        ("auto", "bfloat16", H100, FLASH),
        ("auto", "float16", H100, FLASH),
        ("auto", "bfloat16", Facts((8, 0)), FLASH),
        ("auto", "float32", H100, "sdpa"),
        ("auto", "bfloat16", T4, "sdpa"),
        ("auto", "bfloat16", CPU, "sdpa"),
        ("auto", "bfloat16", NO_PACKAGE, "sdpa"),
        ("auto", "bfloat16", FOREIGN, "sdpa"),
        (FLASH, "bfloat16", H100, FLASH),
        ("sdpa", "bfloat16", H100, "sdpa"),
        ("eager", "bfloat16", H100, "eager"),
        ("eager", "float32", CPU, "eager"),
    ],
)
def test_flash_attention_runs_where_it_can(
    asked: str, dtype: str, found: Facts, chosen: str
) -> None:
    assert choose_attention(asked, dtype, found) == chosen


@pytest.mark.parametrize(
    ("dtype", "found", "reason"),
    [
        ("bfloat16", CPU, "needs a GPU, and the model runs on the CPU"),
        ("bfloat16", NO_PACKAGE, "needs the flash-attn package"),
        ("float32", H100, "half precision only, and model.dtype is float32"),
        ("bfloat16", T4, "compute capability 8.0 or more, and this one has 7.5"),
        ("bfloat16", FOREIGN, "is not known to this model's class"),
    ],
)
def test_flash_attention_asked_for_by_name_is_refused_with_the_reason(
    dtype: str, found: Facts, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason) as caught:
        choose_attention(FLASH, dtype, found)
    assert str(caught.value).startswith("model.attention: flash_attention_2 ")
    assert "\n" not in str(caught.value)


def test_what_a_model_class_knows_is_read_from_it() -> None:
    from transformers import Idefics2ForConditionalGeneration as Second
    from transformers import IdeficsForVisionText2Text as First

    cpu = torch.device("cpu")
    assert facts(cpu, Second) == Facts(None)
    assert not facts(cpu, First).in_model
    assert not facts(cpu, None).in_model


def load(folder: Path, **settings: Any) -> Any:
    asked = ModelSettings(name=str(folder), **settings)
    return family_of(resolve(asked)).load(resolve(asked), asked, Placement())


def test_a_model_is_not_loaded_with_flash_attention_on_a_cpu(checkpoint_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.attention: flash_attention_2 needs a GPU"):
        load(checkpoint_folder, attention=FLASH)


@pytest.fixture(scope="module")
def inputs() -> list[ModelInput]:
    """Prompts of one to three images, each of its own size, split and whole."""
    rng = np.random.default_rng(3)
    sizes = iter(SIZES)

    def tiles() -> tuple[Image, ...]:
        size = next(sizes)
        return tuple(
            rng.integers(0, 256, (*shape, 3), np.uint8) for shape in (size, size, size[::-1])
        )

    return [
        ModelInput(prompt, tuple(tiles() for _ in range(prompt.count("<image>"))))
        for prompt in PROMPTS
    ]


def answers(model: Any, inputs: list[ModelInput]) -> list[tuple[int, ...]]:
    with Engine(model, Limits(3)) as engine:
        futures = [engine.submit(Request(one.prompt, one.tiles, 16)) for one in inputs]
        return [future.result(timeout=60).token_ids for future in futures]


@torch.inference_mode()
def test_eager_and_sdpa_agree_on_features_and_answers(
    checkpoint_folder: Path, inputs: list[ModelInput]
) -> None:
    eager, sdpa = (load(checkpoint_folder, attention=name) for name in ("eager", "sdpa"))
    tiles = [tile for one in inputs for page in one.tiles for tile in page]
    for one, other in zip(eager.features(tiles), sdpa.features(tiles), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    expected = [answer.token_ids for answer in eager.generate(inputs, 16)]
    assert len(set(expected)) == len(inputs)
    assert [answer.token_ids for answer in sdpa.generate(inputs, 16)] == expected
    assert answers(sdpa, inputs) == answers(eager, inputs) == expected


class Maskless:
    """Attends as flash attention does without a mask: to all keys, whatever a mask would hide."""

    def __init__(self) -> None:
        self.masks: dict[str, list[bool]] = {}

    def __call__(
        self, module: Any, queries: Any, keys: Any, values: Any, mask: Any, **options: Any
    ) -> Any:
        self.masks.setdefault(type(module).__name__, []).append(mask is not None)
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return sdpa(module, queries, keys, values, None, **options)


@torch.inference_mode()
def test_vision_shows_flash_attention_no_mask_that_it_would_ignore(
    checkpoint_folder: Path, inputs: list[ModelInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In padded batches flash attention once gave the perceiver wrong answers."""
    model = load(checkpoint_folder, attention="eager")
    tiles = [tile for one in inputs for page in one.tiles for tile in page]
    assert len({tile.shape for tile in tiles}) > 6
    expected = model.features(tiles)
    maskless = Maskless()
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, FLASH, maskless)
    for module in model.weights.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation_internal = FLASH
    for one, other in zip(model.features(tiles), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert set(maskless.masks) == {"Idefics2VisionAttention", "Idefics2PerceiverAttention"}
    assert not any(had_mask for masks in maskless.masks.values() for had_mask in masks)
    # The same tiles in one padded batch do need a mask, which shows that the check can fail.
    padded = torch.zeros(2, 1, 3, 112, 112)
    seen = torch.zeros(2, 1, 112, 112, dtype=torch.bool)
    for i, side in enumerate((112, 56)):
        padded[i, 0, :, :side, :side], seen[i, 0, :side, :side] = 0.5, True
    model.weights.get_image_features(pixel_values=padded, pixel_attention_mask=seen)
    assert any(maskless.masks["Idefics2PerceiverAttention"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_type_answers_on_a_cpu_whole_and_token_by_token(
    checkpoint_folder: Path, inputs: list[ModelInput], dtype: str
) -> None:
    model = load(checkpoint_folder, dtype=dtype)
    assert isinstance(model._whole, Idefics2Model)
    assert model.weights.dtype == getattr(torch, dtype)
    (whole,) = model.generate(inputs[:1], 16)
    (stepped,) = answers(model, inputs[:1])
    assert len(stepped) == 16
    # In half precision, sums taken in another order may round to another token later on.
    surely = 16 if dtype == "float32" else 2
    assert stepped[:surely] == whole.token_ids[:surely]
