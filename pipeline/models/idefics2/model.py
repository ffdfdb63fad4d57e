"""The model half of Idefics2: uint8 tiles and prompts in, greedy constrained answers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoModelForImageTextToText
from transformers.generation import LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pipeline.errors import CheckpointError, one_line
from pipeline.job import Model as ModelSettings
from pipeline.models.base import Checkpoint, ModelInput, ModelOutput, Placement, Vocabulary
from pipeline.models.devices import device_errors, free_bytes
from pipeline.models.dtypes import effective_dtype
from pipeline.models.idefics2.constrain import ConstrainedLogits
from pipeline.models.idefics2.family import load_processor, loading
from pipeline.models.idefics2.pixels import look_up, pixel_table
from pipeline.models.idefics2.token_bytes import is_byte_level, token_bytes
from pipeline.records import FinishReason, Image

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NEVER_GENERATED = ("<image>", "<fake_token_around_image>")


class Idefics2Model:
    """Weights, processor and the static-batch `generate` of transformers.

    Vision runs apart from text: tiles of one patch grid are encoded together, unpadded, so that a
    tile's features never depend on its company.
    """

    max_tiles_per_chunk = 16
    chunk_bytes = 4 << 30
    """What a chunk's activations may take, and half of what is free at most: the connector widens
    every patch to 14,336 floats at 8B.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement
    ) -> None:
        if placement.threads is not None:
            torch.set_num_threads(placement.threads)
        self._device = torch.device(placement.device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise CheckpointError(
                "resources.gpus_per_actor: it asks for a GPU and torch finds none here; set it to 0"
            )
        self.processor = load_processor(checkpoint)
        if settings.image_splitting != "auto":
            self.processor.image_processor.do_image_splitting = settings.image_splitting
        self.weights: Any = _load_weights(checkpoint, settings, self._device)
        latents = self.weights.config.perceiver_config.resampler_n_latents
        if self.processor.image_seq_len != latents:
            raise CheckpointError(
                f"model.name: '{checkpoint.name}' has image_seq_len "
                f"{self.processor.image_seq_len} in its processor and {latents} latents in its "
                "model; mend processor_config.json"
            )
        self._levels = pixel_table(self.processor.image_processor)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer as a grammar sees it."""
        tokenizer = self.processor.tokenizer
        size = self.weights.config.text_config.vocab_size
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
        named = self.processor.tokenizer.convert_tokens_to_ids(list(_NEVER_GENERATED))
        special = {*named, *self.vocabulary.special_ids}.difference(self._stop_ids)
        return tuple(sorted(i for i in special if i < len(self.vocabulary.tokens)))

    @cached_property
    def _stop_ids(self) -> tuple[int, ...]:
        tokenizer = self.processor.tokenizer
        end_of_utterance = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
        return tuple(dict.fromkeys((tokenizer.eos_token_id, end_of_utterance)))

    @torch.inference_mode()
    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        """Answer a batch; see `pipeline.models.base.Model.generate`."""
        with device_errors():
            return self._generate(inputs, max_new_tokens)

    def _generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        text = self.processor(
            text=[item.prompt for item in inputs], padding=True, return_tensors="pt"
        ).to(self._device)
        features = self.features([tile for i in inputs for page in i.tiles for tile in page])
        logits = ConstrainedLogits(
            [item.constraint for item in inputs],
            stop_ids=self._stop_ids,
            never=self.never,
        )
        vision = (
            {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}
            if features
            else {}
        )
        sequences = self.weights.generate(
            **text,
            **vision,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(self._stop_ids),
            pad_token_id=self.processor.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([logits]),
        )
        answers = sequences[:, text["input_ids"].shape[1] :].tolist()
        prompt_tokens = text["attention_mask"].sum(1).tolist()
        return [
            self._output(answer, logprobs, n_prompt)
            for answer, logprobs, n_prompt in zip(
                answers, logits.logprobs(), prompt_tokens, strict=True
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

    def features(self, tiles: Sequence[Image]) -> list[torch.Tensor]:
        """Return one (n_latents, hidden) tensor a tile, in the order given."""
        features: list[torch.Tensor | None] = [None] * len(tiles)
        for chunk in self._chunks(tiles):
            pixels = self.pixels([tiles[i] for i in chunk]).unsqueeze(1)
            encoded = self.weights.get_image_features(pixel_values=pixels).pooler_output
            for i, feature in zip(chunk, encoded, strict=True):
                features[i] = feature
        return [feature for feature in features if feature is not None]

    def _chunks(self, tiles: Sequence[Image]) -> Iterator[list[int]]:
        grids: dict[tuple[int, int], list[int]] = {}
        for i, tile in enumerate(tiles):
            grids.setdefault(self._grid(tile), []).append(i)
        config = self.weights.config
        widest = max(config.text_config.intermediate_size, config.vision_config.intermediate_size)
        room = min(self.chunk_bytes, free_bytes(self._device) // 2)
        for (rows, columns), members in grids.items():
            tile_bytes = 3 * rows * columns * widest * self.weights.dtype.itemsize
            most = max(1, min(self.max_tiles_per_chunk, room // tile_bytes))
            for start in range(0, len(members), most):
                yield members[start : start + most]

    def _grid(self, tile: Image) -> tuple[int, int]:
        patch = self.weights.config.vision_config.patch_size
        return tile.shape[0] // patch, tile.shape[1] // patch

    def pixels(self, tiles: Sequence[Image]) -> torch.Tensor:
        """Normalise tiles of one patch grid: float (n, 3, rows * patch, columns * patch).

        Pixels past the last whole patch are cut: the patch convolution never reads them.
        """
        rows, columns = self._grid(tiles[0])
        patch = self.weights.config.vision_config.patch_size
        height, width = rows * patch, columns * patch
        if self._device.type == "cpu":
            looked_up = look_up(self._levels, [tile[:height, :width] for tile in tiles])
            return torch.from_numpy(looked_up).to(self.weights.dtype)
        pixels = torch.empty(
            (len(tiles), 3, height, width), dtype=self.weights.dtype, device=self._device
        )
        tables = torch.from_numpy(self._levels).to(self._device, self.weights.dtype)
        for target, tile in zip(pixels, tiles, strict=True):
            levels = torch.from_numpy(np.array(tile[:height, :width])).to(self._device)
            for channel, table in enumerate(tables):
                source = levels[..., channel if levels.shape[-1] == 3 else 0]
                target[channel] = table[source.int()]
        return pixels


_ADAPTER = "adapter_model.safetensors"


def _load_weights(checkpoint: Checkpoint, settings: ModelSettings, device: torch.device) -> Any:
    if settings.adapter is not None:
        _check_adapter(settings.adapter)  # before the weights, which take minutes
    dtype = effective_dtype(settings.dtype, on_gpu=device.type == "cuda")
    attention = settings.attention
    if attention == "auto":
        flash = device.type == "cuda" and find_spec("flash_attn") is not None
        attention = "flash_attention_2" if flash and dtype != "float32" else "sdpa"
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            checkpoint.location,
            dtype=_DTYPES[dtype],
            attn_implementation=attention,
            output_loading_info=True,
            use_safetensors=True,  # a pickle may run whatever it likes
            **loading(checkpoint),
        )
        if missing := sorted(report["missing_keys"]):
            # The loader has made them up, and the answers would mean nothing.
            raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
        model.to(device)
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.name: '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error
    if settings.adapter is not None:
        _load_adapter(model, settings.adapter)
    return model.eval()


def _check_adapter(adapter: str) -> None:
    path = Path(adapter).expanduser()
    if adapter.startswith((".", "/", "~")) and not path.is_dir():
        raise CheckpointError(
            f"model.adapter: there is no folder '{adapter}'; give a folder made by "
            "save_pretrained, or a hub id (owner/name)"
        )
    if find_spec("peft") is None:
        raise CheckpointError(
            "model.adapter: needs the peft package; pip install pagelake[adapters]"
        )
    try:  # its loader would be content with a pickle, which may run whatever it likes
        found = (path / _ADAPTER).is_file() if path.is_dir() else hf_hub_download(adapter, _ADAPTER)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"model.adapter: '{adapter}': {one_line(error)}") from error
    if not found:
        raise CheckpointError(f"model.adapter: '{adapter}' has no {_ADAPTER}; save it as such")


def _load_adapter(model: Any, adapter: str) -> None:
    path = Path(adapter).expanduser()
    try:
        report = model.load_adapter(str(path) if path.is_dir() else adapter)
        if missing := sorted(report.missing_keys):
            raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.adapter: '{adapter}' does not load: {one_line(error)}"
        ) from error
