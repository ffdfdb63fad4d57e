"""A stock model token by token, for the engine's running batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from pipeline.models.base import Model, ModelInput, ModelOutput, Vocabulary
from pipeline.models.decoder import Decoder, UnknownDecoder
from pipeline.models.image_text import ImageTextModel
from pipeline.models.stepping import PromptTokens
from pipeline.records import Image, Tiles
from pipeline.tiles import tile_shapes

_log = logging.getLogger(__name__)

_LEAST_SHARED = 16
"""Fewer tokens in common are quicker computed again than looked up."""


def stepping(whole: ImageTextModel, name: str) -> Model:
    """Return a model to be run token by token, or as it is if its text model is unknown.

    One that learns stays as it is, too: `Decoder` joins weights.
    """
    if whole.learns:
        return whole
    try:
        return TokenByToken(whole)
    except UnknownDecoder as error:
        _log.warning("%s: %s; it answers in static batches", name, error)
        return whole


class TokenByToken:
    """A `pipeline.models.stepping.SteppingModel` on the weights of an `ImageTextModel`.

    Raises
    ------
    UnknownDecoder
        If the text model is none that `Decoder` runs.
    """

    def __init__(self, whole: ImageTextModel) -> None:
        self._whole = whole
        self.weights = whole.weights
        self._processor = whole.processor
        self.decoder = Decoder(whole.weights.model.text_model, whole.weights.lm_head)
        self.never = whole.never
        self._tokenized = lru_cache(maxsize=64)(self._tokenize)
        self._image = "<image>"
        self._n_quote = len(self._encode('"'))

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer as a grammar sees it."""
        return self._whole.vocabulary

    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        """Answer a batch whole; see `pipeline.models.base.Model.generate`."""
        return self._whole.generate(inputs, max_new_tokens)

    def tokenize(
        self, prompt: str, tiles: Tiles, examples: int, *, alike: bool = True
    ) -> PromptTokens:
        """Return the prompt with each image's placeholder widened; see `SteppingModel`."""
        shapes = tile_shapes(tiles)
        before = 0
        if examples:
            shown = self._image.join(prompt.split(self._image)[: examples + 1])
            widened = self._whole.widened(shown, shapes[:examples])
            before = widened.count(self._image)
        return self._tokenized(self._whole.widened(prompt, shapes), before, alike)

    def features(self, tiles: Sequence[Image]) -> list[Tensor]:
        """Encode tiles: (tokens, width) each."""
        return self._whole.features(tiles)

    def tokens_of(self, text: str) -> list[int]:
        """Return the tokens that the model would write this text with, inside an answer."""
        # Behind a quote, because some tokenizers put a space before the first word.
        return self._encode(f'"{text}')[self._n_quote :]

    def text_of(self, ids: Sequence[int]) -> str:
        """Return an answer's text, without special tokens."""
        text: str = self._processor.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _tokenize(self, widened: str, before: int, alike: bool) -> PromptTokens:
        """`before` is how many tokens stand for the images of examples."""
        tokenizer = self._processor.tokenizer
        ids = tokenizer(widened)["input_ids"]
        image = self.weights.config.image_token_id
        around = {image, *tokenizer.convert_tokens_to_ids(list(self._whole.image_tokens))}
        is_image = [token == image for token in ids]
        shared = 0
        if before:  # past the last example's image, and what closes it
            shared = int(np.flatnonzero(is_image)[before - 1])
            shared = next((i for i in range(shared, len(ids)) if ids[i] not in around), len(ids))
        if alike:
            shared = next((i for i in range(shared, len(ids)) if ids[i] in around), shared)
        return PromptTokens(
            ids=tuple(ids),
            is_image=tuple(is_image),
            shared=shared if shared >= _LEAST_SHARED or before else 0,
        )
