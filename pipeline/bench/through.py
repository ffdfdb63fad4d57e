"""Models that pass what they are asked on to another, for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.models.stepping import SteppingModel
from pipeline.records import Image


class Through:
    """A `pipeline.models.stepping.SteppingModel` that is another one."""

    never: tuple[int, ...]

    def __init__(self, model: SteppingModel) -> None:
        inner: Any = model
        self.weights = inner.weights
        self.decoder = model.decoder
        self.never = model.never
        self.vocabulary = model.vocabulary
        self.tokenize = model.tokenize
        self.tokens_of = model.tokens_of
        self.text_of = model.text_of
        self.generate = inner.generate
        self._inner = model

    def features(self, tiles: Sequence[Image]) -> list[Tensor]:
        """Encode tiles; see `SteppingModel.features`."""
        return self._inner.features(tiles)


class Punctual(Through):
    """Gives features when the device has computed them, so that a clock tells whose time it was."""

    def features(self, tiles: Sequence[Image]) -> list[Tensor]:
        """Encode tiles, and wait for them."""
        features = super().features(tiles)
        if self.decoder.shape.device.type == "cuda":
            torch.cuda.synchronize(self.decoder.shape.device)
        return features
