"""Small IDEFICS checkpoints of the stock classes, with random weights, saved to disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import (
    IdeficsConfig,
    IdeficsForVisionText2Text,
    IdeficsProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.utils import logging

EDGE = 42
CORPUS = ["User: Read the page. Assistant:", '{"total": 12.50, "date": "2024-01-31"}']


def tokenizer(instructed: bool) -> PreTrainedTokenizerFast:
    """One that begins texts with <s> by itself, and has the image tokens behind all others."""
    backend = Tokenizer(BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    added = ["<fake_token_around_image>", "<image>"] + ["<end_of_utterance>"] * instructed
    backend.add_special_tokens(added)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


def weights(added: int, vocabulary: int, resampler: bool) -> IdeficsForVisionText2Text:
    """Weights wide enough apart, and gates open enough, that images tell answers apart."""
    config = IdeficsConfig(
        vocab_size=vocabulary - added,
        additional_vocab_size=added,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=2,
        cross_layer_interval=2,
        alpha_type="vector",
        qk_layer_norms=True,
        use_resampler=resampler,
        vision_config={
            "embed_dim": 32,
            "image_size": EDGE,
            "intermediate_size": 64,
            "patch_size": 14,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        perceiver_config={
            "use_resampler": resampler,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "qk_layer_norms_perceiver": True,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = IdeficsForVisionText2Text(config).eval()
        for name, matrix in model.named_parameters():
            if "alpha" in name:
                matrix.data.fill_(1.0)
            elif matrix.dim() > 1:
                matrix.data.normal_(0, 0.2)
    return model


@pytest.fixture(scope="session")
def make_idefics(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_idefics(resampler, instructed, edit)` -> a new folder.

    `edit` may change the weights, given (model, tokenizer), before they are saved.
    """
    logging.disable_progress_bar()

    def make(
        resampler: bool = True,
        instructed: bool = True,
        edit: Callable[[Any, Any], None] | None = None,
    ) -> Path:
        texts = tokenizer(instructed)
        model = weights(2 + instructed, len(texts), resampler)
        if edit is not None:
            edit(model, texts)
        folder = tmp_path_factory.mktemp("idefics")
        model.save_pretrained(folder)
        IdeficsProcessor(IdeficsImageProcessorPil(image_size=EDGE), texts).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def idefics_folder(make_idefics: Callable[..., Path]) -> Path:
    """An instructed checkpoint with a resampler. Not to be changed."""
    return make_idefics()


@pytest.fixture(scope="session")
def plain_vision_folder(make_idefics: Callable[..., Path]) -> Path:
    """A base checkpoint without a resampler. Not to be changed."""
    return make_idefics(resampler=False, instructed=False)
