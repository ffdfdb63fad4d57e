"""The least that a page costs this model, by stage: what the roofline is laid against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from pipeline.bench.roofline import (
    Cost,
    TextShape,
    VisionShape,
    decode_cost,
    prefill_cost,
    vision_cost,
)
from pipeline.bench.workload import Work
from pipeline.engine.engine import Limits
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.records import Generation, Sample


def page_costs(work: Work, slots: int, generations: Sequence[Generation]) -> dict[str, Cost]:
    """Return the mean cost of a page by stage: vision, prefill and decode.

    Weights are read together by as many rows, prompts or tiles as the engine has at best.
    """
    model: Any = work.stepping
    shape = _text_shape(model)
    rows = min(slots, len(generations))
    prompt = round(fmean(one.prompt_tokens for one in generations))
    request = work.requests()[0]
    own = prompt - model.tokenize(request.prompt, request.tiles, 0).shared
    answer = fmean(len(one.token_ids) for one in generations)
    return {
        "vision": _vision(model.weights, work.samples, rows),
        "prefill": prefill_cost(
            shape,
            rows=max(1, min(rows, Limits().prefill_tokens // prompt)),
            tokens=own,
        ),
        "decode": decode_cost(
            shape,
            rows=rows,
            tokens=answer,
            choices=answer - fmean(one.forced_tokens for one in generations),
            # The first of the passes is the prompt's.
            passes=fmean(one.passes for one in generations) - 1,
            context=prompt + answer / 2,
        ),
    }


def _text_shape(model: Any) -> TextShape:
    layers, decoder = model.weights.model.text_model.layers, model.decoder.shape
    behind_keys = _matrices((layers[-1].self_attn.o_proj, layers[-1].mlp))
    return TextShape(
        all_weights=_matrices(layers) - behind_keys,
        choice_weights=behind_keys + model.weights.lm_head.weight.numel(),
        weight_bytes=decoder.dtype.itemsize,
        token_bytes=decoder.bytes_a_token,
    )


def _vision(weights: Any, samples: Sequence[Sample], rows: int) -> Cost:
    shape = vision_shape(weights)
    patch = weights.config.vision_config.patch_size
    pages = [
        [(tile.shape[0] // patch) * (tile.shape[1] // patch) for page in one.tiles for tile in page]
        for one in samples
    ]
    together = min(Idefics2Model.max_tiles_per_chunk, rows * len(pages[0]))
    costs = [
        vision_cost(shape, tiles, weight_bytes=weights.dtype.itemsize, tiles_together=together)
        for tiles in pages
    ]
    return Cost(fmean(one.flops for one in costs), fmean(one.moved for one in costs))


def vision_shape(weights: Any) -> VisionShape:
    """Read the shape off an `Idefics2ForConditionalGeneration`."""
    config = weights.config
    tower, connector = weights.model.vision_model, weights.model.connector
    resampler = connector.perceiver_resampler.layers
    kept = sum(_matrices((one.self_attn.k_proj, one.self_attn.v_proj)) for one in resampler)
    perceiver = config.perceiver_config
    return VisionShape(
        patch_weights=_matrices(
            (tower.embeddings.patch_embedding, tower.encoder, connector.modality_projection)
        ),
        mixed_weights=kept,
        latent_weights=_matrices(resampler) - kept,
        layers=config.vision_config.num_hidden_layers,
        width=config.vision_config.hidden_size,
        latents=perceiver.resampler_n_latents,
        resampler_layers=perceiver.resampler_depth,
        resampler_width=perceiver.resampler_n_heads * perceiver.resampler_head_dim,
    )


def _matrices(modules: Iterable[Any]) -> int:
    """Count parameters that are multiplied: those of two dimensions or more."""
    return sum(
        parameter.numel()
        for module in modules
        for parameter in module.parameters()
        if parameter.dim() > 1
    )
