"""What fits into a model's context: the tokens that it can tell apart by their position."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ItemError
from pipeline.records import FailureKind


def context_of(text_config: Any) -> int | None:
    """Return how many tokens a text model's config allows, None if it does not say."""
    found: int | None = getattr(text_config, "max_position_embeddings", None)
    return found


def answer_budget(prompt_tokens: int, wanted: int, context: int | None) -> int:
    """Return how many tokens an answer may have: those wanted, or as many as fit.

    Raises
    ------
    ItemError
        `model_error` if the prompt leaves room for none.
    """
    if context is None or prompt_tokens + wanted <= context:
        return wanted
    if prompt_tokens >= context:
        raise ItemError(
            FailureKind.MODEL_ERROR,
            f"a prompt of {prompt_tokens:,} tokens and an answer of up to {wanted:,} do not fit "
            f"the model's context of {context:,}; lower pages_per_sample, or show fewer examples "
            "or parts of pages",
        )
    return context - prompt_tokens
