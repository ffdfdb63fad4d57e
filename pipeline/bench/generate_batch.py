"""transformers' own continuous batching, `generate_batch`, made to read images.

It takes token ids only. So each feature of each image gets an id of its own, behind the vocabulary,
and while it runs the model's embedding looks those ids up among the features.
https://huggingface.co/docs/transformers/continuous_batching
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.bench.workload import Work
from pipeline.models.stepping import SteppingModel


class _WordsAndFeatures(nn.Module):
    """Embeds ids of words, and behind those ids of features (features, width)."""

    def __init__(self, words: nn.Module, n_words: int, features: Tensor) -> None:
        super().__init__()
        self._words = words
        self._n_words = n_words
        self._features = features

    def forward(self, ids: Tensor) -> Tensor:
        seen = ids >= self._n_words
        embedded: Tensor = self._words(ids.masked_fill(seen, 0))
        of_images = self._features[(ids - self._n_words).clamp_min(0)]
        return torch.where(seen.unsqueeze(-1), of_images, embedded)


@torch.no_grad()
def generate_batch(work: Work, model: SteppingModel, slots: int) -> list[list[int]]:
    """Return the tokens of each sample's answer, greedy and without a grammar.

    `slots` requests run together. Answers of forced lengths never stop by themselves.
    """
    weights: Any = model.weights  # type: ignore[attr-defined]
    n_words = weights.get_input_embeddings().num_embeddings
    prompts, features = _prompts(work, model, n_words)
    ends = -1 if work.grammar is None else list(model.vocabulary.stop_ids)
    with _embedding(weights, n_words, features), _manager(weights, work, prompts, slots) as manager:
        names = [
            manager.add_request(prompt, max_new_tokens=length, eos_token_id=ends)
            for prompt, length in zip(prompts, work.lengths, strict=True)
        ]
        answers: dict[str, list[int]] = {}
        while len(answers) < len(names):
            found = manager.get_result(timeout=1)
            if found is not None and found.error is not None:
                short = "out of memory" in str(found.error)
                raise (MemoryError if short else RuntimeError)(found.error)
            if found is not None and found.is_finished():
                answers[found.request_id] = found.generated_tokens
            elif found is None and not manager.is_running():
                raise RuntimeError("its thread has ended")
    return [answers[name] for name in names]


def _prompts(work: Work, model: SteppingModel, n_words: int) -> tuple[list[list[int]], Tensor]:
    """Return prompts whose image tokens are ids of features, and the features."""
    tiles = [tile for sample in work.samples for page in sample.tiles for tile in page]
    features = model.features(tiles)
    ids = count(n_words)
    prompts: list[list[int]] = []
    for request in work.requests():
        prompt = model.tokenize(request.prompt, request.tiles, 0)
        prompts.append(
            [
                next(ids) if is_image else token
                for token, is_image in zip(prompt.ids, prompt.is_image, strict=True)
            ]
        )
    return prompts, torch.cat(features)


@contextmanager
def _embedding(weights: Any, n_words: int, features: Tensor) -> Iterator[None]:
    words = weights.get_input_embeddings()
    weights.set_input_embeddings(_WordsAndFeatures(words, n_words, features))
    try:
        yield
    finally:
        weights.set_input_embeddings(words)


@contextmanager
def _manager(
    weights: Any, work: Work, prompts: Sequence[Sequence[int]], slots: int
) -> Iterator[Any]:
    from transformers import ContinuousBatchingConfig

    page, longest = 32, max(map(len, prompts)) + max(work.lengths)
    config = ContinuousBatchingConfig(
        page_size=page,
        # Given here because transformers counts a GPU's memory, and there may be none.
        num_blocks=slots * (-(-longest // page) + 1),
        max_batch_tokens=max(slots, 2048),
        max_requests_per_batch=slots,
        allow_block_sharing=False,  # ids of images differ, and blocks are compared by ids
    )
    with weights.continuous_batching_context_manager(
        continuous_batching_config=config, timeout=30
    ) as manager:
        yield manager
