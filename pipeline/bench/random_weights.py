"""Checkpoints with random weights: full-size costs without full-size downloads.

Written to disk in `save_pretrained` layout and loaded as any other, so that nothing is special
about them but their answers. Shapes are those of the published idefics2-8b (Laurençon et al. 2024,
arXiv:2405.02246, and the checkpoint's config.json).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from pipeline.bench.invoices import invoice_json
from pipeline.errors import CheckpointError
from pipeline.schema import default_prompt, load_schema
from pipeline.synth.document import make_document
from pipeline.synth.words import Split

_SPECIAL = ("<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>", "<end_of_utterance>")
_TEMPLATE = (
    "{% for message in messages %}{{ message.role.capitalize() }}:"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_VOCABULARY = 32_003

_SHAPES: dict[str, dict[str, dict[str, int]]] = {
    "idefics2-8b": {
        "vision": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
        },
        "perceiver": {
            "resampler_n_latents": 64,
            "resampler_depth": 3,
            "resampler_n_heads": 16,
            "resampler_head_dim": 96,
            "num_key_value_heads": 4,
        },
        "text": {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    },
    "tiny": {
        "vision": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "perceiver": {
            "resampler_n_latents": 64,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 32,
            "num_key_value_heads": 2,
        },
        "text": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
    },
}


def write_random_checkpoint(
    folder: Path, shape: str, *, splitting: bool, device: str = "cpu", seed: int = 0
) -> None:
    """Write a checkpoint of the stock classes with random weights; bfloat16 at full size.

    Its tokenizer is a byte-level BPE of 32,000 entries trained on made records, prompts and words.

    Raises
    ------
    CheckpointError
        If there is no such shape.
    """
    if shape not in _SHAPES:
        raise CheckpointError(f"there is no shape '{shape}'; there are {', '.join(_SHAPES)}")
    logging.disable_progress_bar()
    tokenizer = _tokenizer(seed)
    images = Idefics2ImageProcessorPil(
        do_image_splitting=splitting, size={"longest_edge": 980, "shortest_edge": 378}
    )
    latents = _SHAPES[shape]["perceiver"]["resampler_n_latents"]
    processor = Idefics2Processor(images, tokenizer, image_seq_len=latents, chat_template=_TEMPLATE)
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16 if shape != "tiny" else torch.float32)
    try:
        with torch.device(device):
            model = Idefics2ForConditionalGeneration(_config(shape, tokenizer))
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _config(shape: str, tokenizer: Any) -> Idefics2Config:
    parts = _SHAPES[shape]
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return Idefics2Config(
        vision_config={**parts["vision"], "image_size": 980, "patch_size": 14},
        perceiver_config={**parts["perceiver"], "hidden_size": parts["text"]["hidden_size"]},
        text_config={
            **parts["text"],
            **special,
            "model_type": "mistral",
            "vocab_size": _VOCABULARY,
            "max_position_embeddings": 32_768,
            "sliding_window": 4096,  # what MistralConfig says where the published files say none
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
    )


def _tokenizer(seed: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        _corpus(seed),
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY - 3,
            special_tokens=list(_SPECIAL),
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
        additional_special_tokens=list(_SPECIAL[3:]),
    )


def _corpus(seed: int) -> Iterator[str]:
    """Made text: pages as printed, records and prompts of both schemas, and made-up words.

    With them it writes the schemas' words with about as many tokens as one trained on English.
    """
    prompts = [default_prompt(load_schema(name)) for name in ("receipt.v1", "invoice.v1")]
    rng = random.Random(f"corpus {seed}")
    syllables = [a + b + c for a in "bcdfglmnprstv" for b in "aeiou" for c in ("", "n", "r", "s")]
    for number in range(400):
        page = make_document(f"tokens {seed}/{number}", Split.TRAIN).pages[0]
        yield page.layout.text
        yield page.receipt.to_json()
        yield invoice_json(f"tokens {seed}/{number}", Split.TRAIN)
        yield from prompts
    for _ in range(10_000):
        yield " ".join("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(12))
