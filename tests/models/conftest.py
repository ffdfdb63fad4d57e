"""Small Idefics2 checkpoints of the stock classes, with random weights, saved to disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.utils import logging

SPECIAL = ["<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].capitalize() }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
CORPUS = [
    '{"merchant": "Corner Shop", "date": "2024-01-31", "items": [{"name": "Tea", "qty": 2}]}',
    "Read the page and answer with one JSON object. User: Assistant: total currency EUR USD",
    "0123456789 12.50 99.90 ABCDEFGHIJKLMNOPQRSTUVWXYZ null true false",
]

MakeCheckpoint = Callable[..., Path]


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


def processor(longest: int, shortest: int, splitting: bool, latents: int) -> Idefics2Processor:
    images = Idefics2ImageProcessorPil(
        do_image_splitting=splitting, size={"longest_edge": longest, "shortest_edge": shortest}
    )
    return Idefics2Processor(
        images, tokenizer(), image_seq_len=latents, chat_template=CHAT_TEMPLATE
    )


def weights(
    vocabulary: int, image_token: int, image_size: int, latents: int, seed: int
) -> Idefics2ForConditionalGeneration:
    """Weights wide enough apart that greedy answers differ from page to page."""
    width = 48
    config = Idefics2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": 14,
        },
        perceiver_config={
            "hidden_size": width,
            "resampler_n_latents": latents,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config={
            "model_type": "mistral",
            "hidden_size": width,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": vocabulary,
            "max_position_embeddings": 2048,
            "sliding_window": None,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        image_token_id=image_token,
        tie_word_embeddings=False,
    )
    model = Idefics2ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for matrix in model.parameters():
        if matrix.dim() > 1:  # the norms and biases stay as they are
            matrix.data.normal_(0, 0.2, generator=generator)
    return model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only slow matrices as small as these down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`make_checkpoint(longest, shortest, splitting, latents, seed, edit)` -> a new folder.

    `edit` may change the weights, given (model, tokenizer), before they are saved.
    """
    logging.disable_progress_bar()

    def make(
        longest: int = 112,
        shortest: int = 42,
        splitting: bool = True,
        latents: int = 8,
        seed: int = 0,
        edit: Callable[[Any, Any], None] | None = None,
    ) -> Path:
        parts = processor(longest, shortest, splitting, latents)
        model = weights(
            vocabulary=len(parts.tokenizer) + 3,  # rows past the tokenizer, as 8B has
            image_token=parts.tokenizer.convert_tokens_to_ids("<image>"),
            image_size=longest,
            latents=latents,
            seed=seed,
        )
        if edit is not None:
            edit(model, parts.tokenizer)
        folder = tmp_path_factory.mktemp("checkpoint")
        model.save_pretrained(folder)
        parts.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint_folder(make_checkpoint: MakeCheckpoint) -> Path:
    """A checkpoint with image splitting, edges 112 and 42. Not to be changed."""
    return make_checkpoint()
