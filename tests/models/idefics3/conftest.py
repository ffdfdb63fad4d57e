"""Small Idefics3 and SmolVLM checkpoints of the stock classes, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.utils import logging

from pipeline.models.base import PagePlan
from pipeline.records import Image

SPECIAL = ["<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
GRID = ["<global-img>", *(f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3))]

DrawPage = Callable[[PagePlan, int], Image]


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """As published: SmolVLM knows the grid's names as tokens, Idefics3 begins sequences itself."""
    backend = Tokenizer(BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        ['{"kind": "receipt"} User: Read the page. Assistant: row col global img'],
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if kind == "smolvlm":
        backend.add_tokens([AddedToken(name, normalized=False) for name in GRID])
    if kind == "idefics3":
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


def save(kind: str, folder: Path) -> Path:
    """Save a checkpoint: SmolVLM's has tied weights and squares that patches do not fill."""
    smol = kind == "smolvlm"
    square = 58 if smol else 56
    images = (SmolVLMImageProcessorPil if smol else Idefics3ImageProcessorPil)(
        size={"longest_edge": 3 * square}, max_image_size={"longest_edge": square}
    )
    parts = Idefics3Processor(images, tokenizer(kind), image_seq_len=4)
    parts.chat_template = "<s>{% for m in messages %}{% for part in m['content'] %}" + (
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    llama3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 8.0}
    llama3 |= {"rope_type": "llama3", "original_max_position_embeddings": 64}
    config = (SmolVLMConfig if smol else Idefics3Config)(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": square,
            "patch_size": 14,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": len(parts.tokenizer) + 3,
            "max_position_embeddings": 4096,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "rope_parameters": {"rope_theta": 10000.0, **({} if smol else llama3)},
        },
        image_token_id=parts.tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=smol,
    )
    model = (SmolVLMForConditionalGeneration if smol else Idefics3ForConditionalGeneration)(config)
    generator = torch.Generator().manual_seed(1)
    for matrix in model.parameters():
        if matrix.dim() > 1:
            matrix.data.normal_(0, 0.2, generator=generator)
    model.save_pretrained(folder)
    parts.save_pretrained(folder)
    if smol:  # as published; that class needs packages that are not installed
        file = folder / "processor_config.json"
        file.write_text(file.read_text().replace("Idefics3Processor", "SmolVLMProcessor"))
    return folder


@pytest.fixture(scope="session", params=["idefics3", "smolvlm"])
def kind(request: pytest.FixtureRequest) -> str:
    """The model type."""
    found: str = request.param
    return found


@pytest.fixture(scope="session")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with image splitting, three squares a side at most. Not to be changed."""
    logging.disable_progress_bar()
    return save(kind, tmp_path_factory.mktemp(kind))


@pytest.fixture(scope="session")
def draw_page() -> DrawPage:
    """`draw_page(plan, channels)` -> noise of the plan's size on its white canvas."""

    def draw(plan: PagePlan, channels: int) -> Image:
        canvas = np.full((plan.canvas_height, plan.canvas_width, channels), 255, np.uint8)
        shape = (plan.height, plan.width, channels)
        noise = np.random.default_rng(plan.width).integers(0, 256, shape, np.uint8)
        canvas[: plan.height, : plan.width] = noise // channels
        return canvas

    return draw
