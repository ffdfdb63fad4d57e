"""Pointing every latent of the resampler at its own patch, before it learns anything else.

From scratch a resampler takes very long to find out that its latents can divide the page among
them. So its first layer's queries and keys are set from data: the mean context vector of each patch
place says what is position in it, its spread over pages what is content; whitening by the content
(Fisher's discriminant) leaves a code a place, and latent i asks for code i.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SHARPNESS = 8.0
"""How much larger the logit of a latent's own patch is than the mean of the others'."""


@torch.no_grad()
def route(inner: Any, vision_output: Tensor) -> float:
    """Set the resampler's first layer; return the attention that latents now give their patch.

    `inner` is the stock `Idefics2Model`, with as many latents as patches; `vision_output` is float
    (pages, patches, width) of some hundred pages that have little in common.
    """
    resampler = inner.connector.perceiver_resampler
    layer = resampler.layers[0]
    attention = layer.self_attn
    size = attention.head_dim
    projected = inner.connector.modality_projection(vision_output)
    context = layer.input_context_norm(projected).float().cpu()  # linear algebra for small matrices
    codes, to_codes = _place_codes(context, size)
    gram = codes @ codes.T
    others = (gram.sum() - gram.trace()) / (gram.numel() - len(gram))
    scale = (_SHARPNESS * size**0.5 / (gram.diagonal().mean() - others)).sqrt()
    latents = torch.randn(resampler.latents.shape)
    latents /= latents.pow(2).mean(1, keepdim=True).sqrt()  # as its norm would
    asks = torch.linalg.lstsq(latents, codes * scale, driver="gelsd").solution
    resampler.latents.copy_(latents)
    heads = attention.num_heads
    attention.q_proj.weight.copy_(asks.T.repeat(heads, 1))
    attention.k_proj.weight.copy_((to_codes * scale).repeat(heads, 1))
    for projection in (attention.v_proj, attention.o_proj):
        torch.nn.init.orthogonal_(projection.weight)
    logits = (latents @ asks) @ (context[:16] @ to_codes.T * scale).mT / size**0.5
    return float(logits.softmax(-1).diagonal(dim1=1, dim2=2).mean())


def _place_codes(context: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (patches, size) codes of the places, and the (size, width) matrix to codes."""
    width = context.shape[-1]
    means = context.mean(0)
    content = (context - means).reshape(-1, width)
    covariance = content.T @ content / len(content)
    covariance += 0.02 * covariance.diagonal().mean() * torch.eye(width)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    places = (means - means.mean(0)) @ whiten.T
    directions = torch.linalg.svd(places, full_matrices=False)[2][:size]
    return places @ directions.T, directions @ whiten
