"""An untrained reader: stock Idefics2 classes, small, and initialised so that it learns quickly.

Initial values that the stock classes leave unfit for training from scratch: the resampler's latents
(all ones, so that they would stay equal for ever) and the positions, which start here as sines of
the patch's row and column (Vaswani et al. 2017, section 3.5, in two dimensions).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    MistralConfig,
)
from transformers.models.idefics2.configuration_idefics2 import (
    Idefics2PerceiverConfig,
    Idefics2VisionConfig,
)
from transformers.utils import logging

from pipeline.lake.folders import replacing
from pipeline.models.chat import render
from pipeline.models.families import TRAITS_FILE
from pipeline.pretrain.examples import RECEIPT_SCHEMA, TEXT_SCHEMA
from pipeline.pretrain.job import Architecture
from pipeline.pretrain.tokenizer import OCR, RECEIPT, build_tokenizer
from pipeline.prompting import conversation, parsed

READABLE = (RECEIPT_SCHEMA, TEXT_SCHEMA)
"""Schemas that the reader is trained to answer."""

_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% endif %}"
    "{% endfor %}{% endfor %}"
    "{{ '" + OCR + "' if schema_id == '" + TEXT_SCHEMA + "' else '" + RECEIPT + "' }}"
)


def build_processor(shape: Architecture) -> Any:
    """Return the stock `Idefics2Processor` around the reader's own tokenizer and template."""
    width, height = shape.canvas
    images = Idefics2ImageProcessorPil(
        do_image_splitting=False,
        size={"shortest_edge": min(width, height), "longest_edge": max(width, height)},
    )
    return Idefics2Processor(
        images,
        build_tokenizer(shape.context),
        image_seq_len=shape.latents,
        chat_template=_TEMPLATE,
    )


def prompts(processor: Any) -> dict[str, str]:
    """Return what the reader is asked, by schema id: a page's image and the task's token."""
    shown = conversation(parsed("{page}"), 1)
    return {
        schema_id: render(processor, shown, style="auto", schema_id=schema_id, name="", default="")
        for schema_id in READABLE
    }


def build_model(shape: Architecture, seed: int) -> Idefics2ForConditionalGeneration:
    """Return the untrained model, float32 on the CPU; the same weights for the same seed."""
    torch.manual_seed(seed)
    model = Idefics2ForConditionalGeneration(_config(shape))
    model.generation_config.pad_token_id = model.config.pad_token_id
    with torch.no_grad():
        _scale_matrices(model)
        _place(model, shape)
    return model


def save_reader(folder: Path, model: nn.Module, processor: Any, shape: Architecture) -> None:
    """Write a folder that `model.name` accepts: float16 weights, processor, template, traits."""
    with replacing(folder) as fresh:
        _write_reader(fresh, model, processor, shape)


def _write_reader(folder: Path, model: nn.Module, processor: Any, shape: Architecture) -> None:
    logging.disable_progress_bar()
    state = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)  # type: ignore[operator]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for section in (config, *(part for part in config.values() if isinstance(part, dict))):
        if "dtype" in section:
            section["dtype"] = "float16"
    _write_json(folder / "config.json", config)
    processor.save_pretrained(folder)
    traits = {"canvas": shape.canvas, "schemas": READABLE, "compact_json": True}
    _write_json(folder / TRAITS_FILE, traits)
    for file in folder.iterdir():
        file.chmod(0o644)  # weights are written for their owner's eyes only


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _config(shape: Architecture) -> Idefics2Config:
    tokens = build_tokenizer(shape.context)
    special = {
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
    }
    vision = Idefics2VisionConfig(
        hidden_size=shape.vision.width,
        intermediate_size=shape.vision.feed_forward,
        num_hidden_layers=shape.vision.layers,
        num_attention_heads=shape.vision.heads,
        image_size=max(shape.canvas),
        patch_size=shape.patch,
        hidden_act="relu",
    )
    perceiver = Idefics2PerceiverConfig(
        hidden_size=shape.text.width,
        resampler_n_latents=shape.latents,
        resampler_depth=1,
        resampler_n_heads=shape.resampler_heads,
        resampler_head_dim=shape.text.width // shape.resampler_heads,
        num_key_value_heads=shape.resampler_heads,
        rms_norm_eps=1e-5,
    )
    text = MistralConfig(
        vocab_size=len(tokens),
        hidden_size=shape.text.width,
        intermediate_size=shape.text.feed_forward,
        num_hidden_layers=shape.text.layers,
        num_attention_heads=shape.text.heads,
        num_key_value_heads=shape.text.heads,
        head_dim=shape.text.width // shape.text.heads,
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-5,
        sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        **special,
    )
    return Idefics2Config(
        vision_config=vision,
        perceiver_config=perceiver,
        text_config=text,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        **special,
    )


def _scale_matrices(model: nn.Module) -> None:
    """Unit variance through every matrix, and less where a residual stream adds up."""
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and not any(part in name for part in ("embed", "latents", "lm_head")):
            into_residual = name.endswith(
                ("out_proj.weight", "o_proj.weight", "fc2.weight", "down_proj.weight")
            )
            depth = 8 if into_residual and "modality" not in name else 1
            nn.init.normal_(weight, std=1 / math.sqrt(depth * weight.shape[1]))


def _place(model: Idefics2ForConditionalGeneration, shape: Architecture) -> None:
    inner = model.model
    embeddings = inner.vision_model.embeddings
    patches = embeddings.patch_embedding.weight
    nn.init.normal_(patches, std=1.5 / math.sqrt(3 * patches[0].numel()))
    nn.init.normal_(inner.text_model.embed_tokens.weight, std=0.05)
    columns, rows = shape.grid
    side = embeddings.num_patches_per_side
    # The stock class spreads an image's rows and columns over a square of buckets.
    bucket = torch.arange(side).float()
    embeddings.position_embedding.weight.copy_(
        0.7 * _sines(bucket * rows / side, bucket * columns / side, shape.vision.width)
    )
    latents = _sines(torch.arange(rows).float(), torch.arange(columns).float(), shape.text.width)
    inner.connector.perceiver_resampler.latents.copy_(latents + 0.1 * torch.randn_like(latents))


def _sines(rows: torch.Tensor, columns: torch.Tensor, width: int) -> torch.Tensor:
    """Return float (rows x columns, width): sine and cosine of both coordinates, unit variance."""
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    count = width // 4
    rates = 1.6 * 40.0 ** -(torch.arange(count) / max(1, count - 1))
    angles = [coordinate.reshape(-1, 1) * rates for coordinate in (y, x)]
    waves = torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1)
    return math.sqrt(2) * nn.functional.pad(waves, (0, width - waves.shape[1]))
