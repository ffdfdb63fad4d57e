"""A stock transformers model that sees tiles and writes text, as the families here share it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.generation import LogitsProcessorList

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, ModelInput, ModelOutput, Placement, Vocabulary
from pipeline.models.constrain import ConstrainedLogits
from pipeline.models.context import answer_budget, context_of
from pipeline.models.devices import device_errors, free_bytes
from pipeline.models.pixels import look_up, pixel_table
from pipeline.models.processors import load_processor
from pipeline.models.token_bytes import is_byte_level, token_bytes
from pipeline.models.weights import load_weights
from pipeline.records import FinishReason, Image
from pipeline.tiles import Shapes, tile_shapes

_END_OF_UTTERANCE = "<end_of_utterance>"


class ImageTextModel(ABC):
    """Weights, processor and the static-batch `generate` of transformers. One a family inherits.

    Vision runs apart from text: tiles of one size, as far as they are `read`, are encoded together,
    unpadded, so that a tile's features never depend on its company.
    """

    processor_kind = "AutoProcessor"
    """See `pipeline.models.processors.load_processor`."""
    max_tiles_per_chunk = 16
    chunk_bytes = 4 << 30
    """What a chunk's activations may take, and half of what is free at most: at 8B, Idefics2's
    connector widens every patch to 14,336 floats.
    """
    image_tokens: tuple[str, ...] = ("<image>", "<fake_token_around_image>")
    """Tokens that belong to images: no answer may hold them."""
    text_parts: tuple[str, ...] = ("model.text_model", "lm_head")
    vision_parts: tuple[str, ...] = ("model.vision_model",)
    """Modules of the weights that a training may freeze as "text" and "vision"."""

    def __init__(
        self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement
    ) -> None:
        if placement.threads is not None:
            torch.set_num_threads(placement.threads)
        self._device = torch.device(placement.device)
        self.learns = placement.learns
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise CheckpointError(
                "resources.gpus_per_actor: it asks for a GPU and torch finds none here; set it to 0"
            )
        self.processor = load_processor(checkpoint, self.processor_kind)
        self.weights: Any = load_weights(checkpoint, settings, self._device)
        self._levels = pixel_table(self.processor.image_processor)

    @abstractmethod
    def widened(self, prompt: str, shapes: Shapes) -> str:
        """Return the prompt with each image's placeholder replaced by its tiles' tokens.

        `shapes` are those of its tiles, image by image.
        """

    @abstractmethod
    def encoded(self, pixels: Tensor) -> Sequence[Tensor]:
        """Run vision: float (n, 3, height, width) -> (tokens of a tile, width) a tile."""

    @abstractmethod
    def seen(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """Return the keyword arguments by which `generate` takes features; they are not empty."""

    def beside(
        self, ids: Tensor, counts: Sequence[int], features: Sequence[Tensor]
    ) -> dict[str, Any]:
        """Return what `generate` takes beside the tokens `ids`, (rows, tokens).

        Row i shows the next `counts[i]` images; `features` has their tiles', in order.
        """
        del ids, counts
        return self.seen(features) if features else {}

    def taught(
        self, ids: Tensor, counts: Sequence[int], features: Sequence[Tensor]
    ) -> dict[str, Any]:
        """Return what the weights' own `forward` takes in place of `beside`, to learn."""
        return self.beside(ids, counts, features)

    def tokenized(self, prompts: list[str]) -> Any:
        """Return the ids of prompts and their mask, int64 (rows, tokens), padded on the left."""
        return self.processor.tokenizer(prompts, padding=True, return_tensors="pt")

    @property
    def vocabulary_size(self) -> int:
        """How many tokens the model gives a score."""
        return int(self.weights.config.get_text_config().vocab_size)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer as a grammar sees it."""
        tokenizer = self.processor.tokenizer
        size = self.vocabulary_size
        # `all_special_ids` leaves out the image tokens and those only the backend marks as special.
        added = tokenizer.added_tokens_decoder
        special = {i for i, token in added.items() if token.special}
        names = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
        # Added text tokens match first wherever they fit, so how text is joined to tokens depends
        # on what comes after it: more than the grammar's library knows of a tokenizer.
        backend = tokenizer.backend_tokenizer.to_str()
        spliced = any(i not in special and len(token.content) > 1 for i, token in added.items())
        plain = spliced and is_byte_level(backend)
        texts = [b"" if i in special else name.encode() for i, name in enumerate(names)]
        if plain:
            texts = [b"" if i in special else token_bytes(name) for i, name in enumerate(names)]
        texts += [b""] * (size - len(texts))
        return Vocabulary(
            tokens=tuple(texts),
            special_ids=tuple(sorted(special)),
            stop_ids=self._stop_ids,
            backend=None if plain else backend,
        )

    @cached_property
    def never(self) -> tuple[int, ...]:
        """Tokens that no answer may hold: all special ones but those that end it."""
        named = self.processor.tokenizer.convert_tokens_to_ids(list(self.image_tokens))
        special = {*named, *self.vocabulary.special_ids}.difference(self._stop_ids)
        return tuple(sorted(i for i in special if i < len(self.vocabulary.tokens)))

    @cached_property
    def _stop_ids(self) -> tuple[int, ...]:
        """The ends of a sequence and, where the tokenizer knows it, of an utterance."""
        tokenizer = self.processor.tokenizer
        ends = [tokenizer.eos_token_id, tokenizer.get_vocab().get(_END_OF_UTTERANCE)]
        # Stock processors add the token to tokenizers of base models, which have no row for it.
        size = self.vocabulary_size
        return tuple(dict.fromkeys(end for end in ends if end is not None and end < size))

    @torch.inference_mode()
    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        """Answer a batch; see `pipeline.models.base.Model.generate`."""
        with device_errors():
            return self._generate(inputs, max_new_tokens)

    def _generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        prompts = [self.widened(item.prompt, tile_shapes(item.tiles)) for item in inputs]
        text = self.tokenized(prompts).to(self._device)
        prompt_tokens = text["attention_mask"].sum(1).tolist()
        context = context_of(self.weights.config.get_text_config())
        budgets = [answer_budget(n, max_new_tokens, context) for n in prompt_tokens]
        features = self.features([tile for i in inputs for page in i.tiles for tile in page])
        logits = ConstrainedLogits(
            [item.constraint for item in inputs],
            stop_ids=self._stop_ids,
            never=self.never,
        )
        sequences = self.weights.generate(
            **text,
            **self.beside(text["input_ids"], [len(item.tiles) for item in inputs], features),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max(budgets),
            eos_token_id=list(self._stop_ids),
            pad_token_id=self.processor.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([logits]),
        )
        answers = sequences[:, text["input_ids"].shape[1] :].tolist()
        return [
            self._output(answer[:budget], logprobs, n_prompt)
            for answer, logprobs, n_prompt, budget in zip(
                answers, logits.logprobs(), prompt_tokens, budgets, strict=True
            )
        ]

    def _output(self, ids: list[int], logprobs: list[float], prompt_tokens: int) -> ModelOutput:
        stops = [i for i, token in enumerate(ids) if token in self._stop_ids]
        end = stops[0] if stops else len(ids)
        return ModelOutput(
            text=self.processor.tokenizer.decode(ids[:end], skip_special_tokens=True),
            token_ids=tuple(ids[:end]),
            logprobs=tuple(logprobs[:end]),
            finish_reason=FinishReason.STOP if stops else FinishReason.LENGTH,
            prompt_tokens=int(prompt_tokens),
        )

    def features(self, tiles: Sequence[Image]) -> list[Tensor]:
        """Return one (tokens, width) tensor a tile, in the order given."""
        features: list[Tensor | None] = [None] * len(tiles)
        for chunk in self._chunks(tiles):
            encoded = self.encoded(self.pixels([tiles[i] for i in chunk]))
            for i, feature in zip(chunk, encoded, strict=True):
                features[i] = feature
        return [feature for feature in features if feature is not None]

    def read(self, tile: Image) -> Image:
        """Return the part of a tile that vision reads: its whole patches.

        The patch convolution never reads the pixels past the last one.
        """
        patch = self.weights.config.vision_config.patch_size
        height, width = (side // patch * patch for side in tile.shape[:2])
        return tile[:height, :width]

    def _chunks(self, tiles: Sequence[Image]) -> Iterator[list[int]]:
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, tile in enumerate(tiles):
            sizes.setdefault(self.read(tile).shape[:2], []).append(i)
        config = self.weights.config
        text, vision = config.get_text_config(), config.vision_config
        widest = max(text.intermediate_size, vision.intermediate_size)
        room = min(self.chunk_bytes, free_bytes(self._device) // 2)
        for (height, width), members in sizes.items():
            patches = height * width // vision.patch_size**2
            tile_bytes = 3 * patches * widest * self.weights.dtype.itemsize
            most = max(1, min(self.max_tiles_per_chunk, room // tile_bytes))
            for start in range(0, len(members), most):
                yield members[start : start + most]

    def pixels(self, tiles: Sequence[Image]) -> Tensor:
        """Normalise what is read of tiles, of one size then: float (n, 3, height, width)."""
        tiles = [self.read(tile) for tile in tiles]
        if self._device.type == "cpu":
            return torch.from_numpy(look_up(self._levels, tiles)).to(self.weights.dtype)
        height, width, _ = tiles[0].shape
        pixels = torch.empty(
            (len(tiles), 3, height, width), dtype=self.weights.dtype, device=self._device
        )
        tables = torch.from_numpy(self._levels).to(self._device, self.weights.dtype)
        for target, tile in zip(pixels, tiles, strict=True):
            levels = torch.from_numpy(np.array(tile)).to(self._device)
            for channel, table in enumerate(tables):
                source = levels[..., channel if levels.shape[-1] == 3 else 0]
                target[channel] = table[source.int()]
        return pixels
