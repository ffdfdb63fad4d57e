"""Idefics3 and SmolVLM: pages as grids of square images, and whole.

Laurençon et al., "Building and better understanding vision-language models", arXiv:2408.12637;
Marafioti et al., "SmolVLM", arXiv:2504.05299. The two differ in their weights and in video only.

A split page travels as two tiles: the whole grid as one, and the page squeezed into one square. The
model half cuts the grid, so that tiles' shapes tell its rows and columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from pipeline.conversation import Conversation
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Model, PagePlan, Placement
from pipeline.models.chat import render
from pipeline.models.processors import image_setting, shared_processor
from pipeline.records import Image
from pipeline.tiles import Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.image_text import ImageTextModel

PROCESSOR = "Idefics3Processor"
"""Reads SmolVLM's files too; SmolVLM's own class needs packages for video."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].capitalize() }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""What the chat checkpoints were trained with."""

_LARGEST = 4096  # what the stock image processor shrinks any page to
_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"
_OF_IMAGES = re.compile(r"<(fake_token_around_image|image|global-img|row_\d+_col_\d+)>")


@dataclass(frozen=True, slots=True)
class Idefics3Encoder:
    """Does what the stock image processor does up to rescaling, bit for bit, on uint8.

    A page's longer side becomes `longest_edge` pixels; with `splitting`, both sides are then
    stretched to whole `square`s. `resample` is Pillow's filter.
    """

    longest_edge: int
    square: int
    splitting: bool
    resample: int

    def plan_page(self, width: float, height: float, scalable: bool) -> PagePlan:
        """Draw with the longer side of `longest_edge`, padded so that splitting stretches nothing.

        Unsplit pages and whole views are squeezed into a square, as in training.
        """
        scale = self.longest_edge / max(width, height)
        if not scalable:
            scale = min(scale, 1.0)
        drawn = max(1, round(width * scale)), max(1, round(height * scale))
        if not self.splitting:
            return PagePlan(*drawn, *drawn)
        shown, longest = self.longest_edge, max(drawn)
        padded = (self._whole(side * shown / longest) * longest // shown for side in drawn)
        return PagePlan(*drawn, *map(max, padded, drawn))

    def encode(self, image: Image) -> tuple[Image, ...]:
        """Return the page in a square, and before it, if it is split, its grid of squares."""
        page = self._resize(image, *self._fitted(image.shape[1], image.shape[0]))
        if not self.splitting:
            return (self._resize(page, self.square, self.square),)
        grid = self._resize(page, *self._in_squares(page.shape[1], page.shape[0]))
        if grid.shape[:2] == (self.square, self.square):
            return (grid,)
        return grid, self._resize(grid, self.square, self.square)

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) with the longer side of `longest_edge`, the other one even."""
        aspect, longest = width / height, self.longest_edge
        if width >= height:
            shorter = int(longest / aspect)
            return longest, max(1, shorter + shorter % 2)
        shorter = int(longest * aspect)
        return max(1, shorter + shorter % 2), longest

    def _in_squares(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) stretched to whole squares."""
        aspect = width / height
        if width >= height:
            width = self._whole(width)
            return width, self._whole(int(width / aspect))
        height = self._whole(height)
        return self._whole(int(height * aspect)), height

    def _whole(self, side: float) -> int:
        return math.ceil(side / self.square) * self.square

    def _resize(self, image: Image, width: int, height: int) -> Image:
        if (height, width) == image.shape[:2]:
            return np.ascontiguousarray(image)
        grey = image.shape[2] == 1
        picture = PIL.Image.fromarray(image[:, :, 0] if grey else image)
        resized = np.asarray(picture.resize((width, height), PIL.Image.Resampling(self.resample)))
        return resized[:, :, np.newaxis] if grey else resized


class Idefics3Family:
    """Builds the encoder, the prompt and the model with the stock transformers classes."""

    def encoder(self, checkpoint: Checkpoint, settings: ModelSettings) -> Idefics3Encoder:
        """Read the checkpoint's image processor into an encoder. Raises CheckpointError."""
        setting = partial(image_setting, checkpoint, shared_processor(checkpoint, PROCESSOR))
        if settings.shortest_edge is not None:
            raise CheckpointError(
                f"model.shortest_edge: '{checkpoint.name}' enlarges every page to its longest edge "
                "and has no shortest; remove it"
            )
        square = setting("max_image_size.longest_edge")
        most = _LARGEST // square * square
        if (edge := settings.longest_edge) is not None and (edge % square or edge > most):
            raise CheckpointError(
                f"model.longest_edge: '{checkpoint.name}' sees pages in squares of {square} "
                f"pixels; set it to a multiple of that, {most} at most"
            )
        asked = settings.image_splitting
        return Idefics3Encoder(
            longest_edge=min(_LARGEST, edge or setting("size.longest_edge")),
            square=square,
            splitting=bool(setting("do_image_splitting", 0) if asked == "auto" else asked),
            resample=setting("resample", 0),
        )

    def prompt(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        conversation: Conversation,
        schema_id: str,
    ) -> str:
        """Return the conversation as the checkpoint wants it, one `<image>` an image."""
        return render(
            shared_processor(checkpoint, PROCESSOR),
            conversation,
            style=settings.chat_template,
            schema_id=schema_id,
            name=checkpoint.name,
            default=CHAT_TEMPLATE,
        )

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement) -> Model:
        """Load the weights. Raises CheckpointError."""
        from pipeline.models.token_by_token import stepping

        return stepping(model_class()(checkpoint, settings, placement), checkpoint.name)


@cache
def model_class() -> type[ImageTextModel]:
    """Return the model half's class; made here, because torch is for the model's process alone."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    from pipeline.models.image_text import ImageTextModel

    class Idefics3Model(ImageTextModel):
        processor_kind = PROCESSOR

        def __init__(
            self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement
        ) -> None:
            super().__init__(checkpoint, settings, placement)
            added = self.processor.tokenizer.added_tokens_decoder.values()
            names = (token.content for token in added)
            self.image_tokens = tuple(name for name in names if _OF_IMAGES.fullmatch(name))
            self._square = int(self.processor.image_processor.max_image_size["longest_edge"])
            config = self.weights.config
            tokens = (self._square // config.vision_config.patch_size // config.scale_factor) ** 2
            if self.processor.image_seq_len != tokens:
                raise CheckpointError(
                    f"model.name: '{checkpoint.name}' has image_seq_len "
                    f"{self.processor.image_seq_len} in its processor and {tokens} tokens a square "
                    "in its model; mend processor_config.json"
                )

        def widened(self, prompt: str, shapes: Shapes) -> str:
            first, *rest = prompt.split(_IMAGE)
            pages = map(self._tokens, shapes)
            return first + "".join(f"{page}{text}" for page, text in zip(pages, rest, strict=True))

        def _tokens(self, shapes: Sequence[tuple[int, ...]]) -> str:
            seen, text = _IMAGE * self.processor.image_seq_len, ""
            for height, width, _ in shapes[:-1]:
                for row in range(1, height // self._square + 1):
                    columns = range(1, width // self._square + 1)
                    text += "".join(f"{_FAKE}<row_{row}_col_{n}>{seen}" for n in columns) + "\n"
                text += "\n"
            return f"{text}{_FAKE}<global-img>{seen}{_FAKE}"

        def read(self, tile: Image) -> Image:
            return tile  # each of its squares is cut for itself

        def encoded(self, pixels: Tensor) -> Sequence[Tensor]:
            n, channels, height, width = pixels.shape
            side, inner = self._square, self.weights.model
            grid = pixels.reshape(n, channels, height // side, side, width // side, side)
            squares = grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
            hidden = inner.vision_model(pixel_values=squares).last_hidden_state
            features: Tensor = inner.connector(hidden)
            return features.reshape(n, -1, features.shape[-1]).unbind()

        def seen(self, features: Sequence[Tensor]) -> dict[str, Any]:
            image = BaseModelOutputWithPooling(pooler_output=features)
            return {"mm_encoder_outputs": {"image": image}}

    return Idefics3Model
