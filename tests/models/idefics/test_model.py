"""Prompts, masks, pixels and answers against the stock processor and `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids,
    incremental_to_binary_attention_mask,
)

from pipeline.conversation import Conversation, Role, Slot, Turn, count_images
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, ModelOutput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.idefics.model import IdeficsModel, images_seen
from pipeline.records import FinishReason, Image
from pipeline.tiles import tile_shapes

END = "<end_of_utterance>"
NEVER = ["<image>", "<fake_token_around_image>"]
LONG = 8
EDGE = 42

User, Assistant, Show = Role.USER, Role.ASSISTANT, Slot.IMAGE
CONVERSATIONS: list[Conversation] = [
    [Turn(User, (Show, "Read the page."))],
    [Turn(User, ("Read the page.", Show))],
    [Turn(User, ("First: ", Show, " then ", Show, Show, " all of it"))],
    [
        Turn(Role.SYSTEM, ("You read receipts.",)),
        Turn(User, (Show, "Total?")),
        Turn(Assistant, ('{"total": 1}',)),
        Turn(User, (Show, Show, "Total?")),
        Turn(Assistant, ('{"total": 2}',)),
        Turn(User, (Show, "Total?")),
    ],
    [Turn(User, ("What is two and two?",))],
]


def load(folder: Path, **settings: Any) -> IdeficsModel:
    asked = ModelSettings(name=str(folder), **settings)
    model = family_of(resolve(asked)).load(resolve(asked), asked, Placement())
    assert isinstance(model, IdeficsModel)
    return model


@pytest.fixture(scope="module")
def instructed(idefics_folder: Path) -> IdeficsModel:
    return load(idefics_folder)


@pytest.fixture(scope="module", params=["resampler", "no resampler"])
def model(
    request: pytest.FixtureRequest, instructed: IdeficsModel, plain_vision_folder: Path
) -> IdeficsModel:
    return instructed if request.param == "resampler" else load(plain_vision_folder)


@pytest.fixture(scope="module")
def pages() -> list[Image]:
    """Tiles as the encoder gives them: noise of one size, grey and RGB."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (EDGE, EDGE, 1 + 2 * (i % 2)), np.uint8) for i in range(8)]


def prompt(model: IdeficsModel, conversation: Conversation, style: str = "default") -> str:
    name = model.processor.tokenizer.name_or_path
    asked = ModelSettings(name=name, chat_template=style)
    return family_of(resolve(asked)).prompt(resolve(asked), asked, conversation, "")


def model_input(
    model: IdeficsModel, conversation: Conversation, pages: Sequence[Image]
) -> ModelInput:
    shown = pages[: count_images(conversation)]
    return ModelInput(prompt(model, conversation), tuple((page,) for page in shown))


def nested(item: ModelInput) -> list[Any]:
    """The prompt as the stock processor takes it: texts, and images as objects."""
    first, *rest = item.prompt.split("<image>")
    found: list[Any] = [first]
    for page, text in zip(item.tiles, rest, strict=True):
        image = page[0][:, :, 0] if page[0].shape[2] == 1 else page[0]
        found += [PIL.Image.fromarray(image), text]
    return [one for one in found if one != ""]


def stock_inputs(model: IdeficsModel, prompts: list[list[Any]], ends: bool = False) -> Any:
    return model.processor(
        text=prompts, add_end_of_utterance_token=ends, padding=True, return_tensors="pt"
    )


def stock_answers(model: IdeficsModel, items: Sequence[ModelInput]) -> list[str]:
    """What the documented use of transformers gives: processor, generate, batch_decode."""
    batch = stock_inputs(model, [nested(item) for item in items])
    tokenizer = model.processor.tokenizer
    sequences = model.weights.generate(
        **batch,
        do_sample=False,
        max_new_tokens=LONG,
        eos_token_id=list(model.vocabulary.stop_ids),
        pad_token_id=tokenizer.pad_token_id,
        bad_words_ids=[[i] for i in model.never],
    )
    answers = sequences[:, batch["input_ids"].shape[1] :]
    found: list[str] = model.processor.batch_decode(answers, skip_special_tokens=True)
    return found


def texts(outputs: Sequence[ModelOutput]) -> list[str]:
    return [output.text for output in outputs]


def given(model: IdeficsModel, items: Sequence[ModelInput]) -> Any:
    """What the model half hands to `generate`."""
    text = model.tokenized([model.widened(i.prompt, tile_shapes(i.tiles)) for i in items])
    with torch.inference_mode():
        features = model.features([page[0] for item in items for page in item.tiles])
        return text | model.beside(text["input_ids"], [len(i.tiles) for i in items], features)


def test_ids_masks_and_pixels_are_the_stock_ones(model: IdeficsModel, pages: list[Image]) -> None:
    items = [model_input(model, conversation, pages) for conversation in CONVERSATIONS]
    for item in items:
        ours, stock = given(model, [item]), stock_inputs(model, [nested(item)])
        assert ours["input_ids"].tolist() == stock["input_ids"].tolist()
    ours, stock = given(model, items), stock_inputs(model, [nested(item) for item in items])
    for key in ("input_ids", "attention_mask", "image_attention_mask"):
        assert torch.equal(ours[key].long(), stock[key].long()), key
    assert not bool(stock["attention_mask"].all()), "some row must be padded"
    assert not bool(stock["image_attention_mask"][4].any())
    for item, expected in zip(items, stock["pixel_values"], strict=True):
        for page, values in zip(item.tiles, expected, strict=False):
            assert torch.equal(model.pixels(page)[0], values)


def test_the_dialogue_is_that_of_the_model_cards(
    instructed: IdeficsModel, pages: list[Image]
) -> None:
    item = model_input(instructed, CONVERSATIONS[3][1:4], pages)
    assert item.prompt == (
        f'User:<image>Total?{END}\nAssistant: {{"total": 1}}{END}\n'
        f"User:<image><image>Total?{END}\nAssistant:"
    )
    one, two, three = (entry for entry in nested(item) if not isinstance(entry, str))
    # Turns as texts of their own: the processor itself ends what is said.
    said = ["Total?", '\nAssistant: {"total": 1}', "\nUser:", two, three, "Total?", "\nAssistant:"]
    stock = stock_inputs(instructed, [["User:", one, *said]], ends=True)
    assert given(instructed, [item])["input_ids"].tolist() == stock["input_ids"].tolist()
    briefed = prompt(instructed, CONVERSATIONS[3][:2])
    assert briefed.startswith("You read receipts.\nUser:<image>Total?")


def test_base_checkpoints_have_no_utterances_to_end(plain_vision_folder: Path) -> None:
    base = load(plain_vision_folder)
    asked = CONVERSATIONS[3][1:4]
    assert prompt(base, asked) == (
        'User:<image>Total?\nAssistant: {"total": 1}\nUser:<image><image>Total?\nAssistant:'
    )
    assert prompt(base, asked, "plain") == '<image>Total?\n{"total": 1}\n\n<image><image>Total?'
    with pytest.raises(CheckpointError, match=r"set model\.chat_template to plain"):
        prompt(base, asked, "auto")


def test_instructed_checkpoints_talk_by_default_and_by_a_template_of_their_own(
    make_idefics: Callable[..., Path], instructed: IdeficsModel
) -> None:
    asked = CONVERSATIONS[0]
    assert prompt(instructed, asked, "auto") == prompt(instructed, asked, "default")
    folder = make_idefics()
    template = "{% for m in messages %}<image>{{ m['content'][1]['text'] }}!{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    assert prompt(load(folder), asked, "auto") == "<image>Read the page.!"


def test_answers_are_the_stock_ones_however_many_images(
    model: IdeficsModel, pages: list[Image]
) -> None:
    items = [
        model_input(model, conversation, pages[i:]) for i, conversation in enumerate(CONVERSATIONS)
    ]
    alone = [stock_answers(model, [item])[0] for item in items]
    assert texts(model.generate(items, LONG)) == alone
    assert len(set(alone)) == len(alone)
    assert all(len(text) > 4 for text in alone)


def test_company_never_changes_an_answer(model: IdeficsModel, pages: list[Image]) -> None:
    items = [
        model_input(model, conversation, pages[i:]) for i, conversation in enumerate(CONVERSATIONS)
    ]
    alone = [model.generate([item], LONG)[0] for item in items]
    for order in ([0, 4], [4, 3, 2, 1, 0]):
        for i, answer in zip(order, model.generate([items[i] for i in order], LONG), strict=True):
            assert answer.token_ids == alone[i].token_ids
            assert answer.prompt_tokens == alone[i].prompt_tokens
            assert answer.logprobs == pytest.approx(alone[i].logprobs, abs=1e-4)


def test_an_answer_depends_on_its_image(model: IdeficsModel, pages: list[Image]) -> None:
    items = [model_input(model, CONVERSATIONS[0], pages[i:]) for i in range(4)]
    assert len(set(texts(model.generate(items, LONG)))) > 1


def test_vision_runs_once_an_image_and_in_chunks(
    instructed: IdeficsModel, pages: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, seen = instructed.weights.model.vision_model, []
    hook = tower.register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["pixel_values"])), with_kwargs=True
    )
    item = model_input(instructed, CONVERSATIONS[3], pages)
    together = instructed.generate([item], LONG)
    monkeypatch.setattr(instructed, "max_tiles_per_chunk", 3)
    apart = instructed.generate([item], LONG)
    hook.remove()
    assert seen == [4, 3, 1]
    assert texts(apart) == texts(together)


def test_masks_of_any_tokens_are_the_stock_ones(instructed: IdeficsModel) -> None:
    tokenizer = instructed.processor.tokenizer
    image, end = tokenizer.convert_tokens_to_ids("<image>"), tokenizer.eos_token_id
    drawn = np.random.default_rng(0).choice([image, end, 5, 6], (40, 12), p=[0.2, 0.2, 0.3, 0.3])
    ids = torch.from_numpy(drawn)
    most = int((ids == image).sum(1).max())
    incremental, _ = image_attention_mask_for_packed_input_ids(ids, tokenizer, "pt")
    stock = incremental_to_binary_attention_mask(incremental, "pt", num_classes=most)
    assert torch.equal(images_seen(ids, image, end, most), stock.bool())


def test_image_tokens_are_never_generated_and_an_utterances_end_stops(
    make_idefics: Callable[..., Path], pages: list[Image]
) -> None:
    def prefer_image_tokens(model: Any, tokenizer: Any) -> None:
        fake, image, end = model.lm_head.additional_fc.weight.data
        push = 100 * torch.ones_like(image)
        image[:], fake[:], end[:] = push, -push, 0

    rigged = load(make_idefics(edit=prefer_image_tokens))
    named = rigged.processor.tokenizer.convert_tokens_to_ids(NEVER)
    item = model_input(rigged, CONVERSATIONS[0], pages)
    with torch.inference_mode():
        batch = stock_inputs(rigged, [nested(item)])
        assert int(rigged.weights(**batch).logits[0, -1].argmax()) in named
    (answer,) = rigged.generate([item], LONG)
    assert answer.finish_reason is FinishReason.LENGTH
    assert not {*named} & {*answer.token_ids}


@pytest.mark.parametrize("stop", ["</s>", END])
def test_an_answer_ends_before_a_stop_token(
    make_idefics: Callable[..., Path], instructed: IdeficsModel, pages: list[Image], stop: str
) -> None:
    items = [model_input(instructed, CONVERSATIONS[0], pages[i:]) for i in range(4)]
    item, plain, step = next(
        (item, answer, step)
        for item, answer in zip(items, instructed.generate(items, LONG), strict=True)
        for step in range(2, LONG)
        if answer.token_ids[step] not in answer.token_ids[:step]
    )

    def end_there(model: Any, tokenizer: Any) -> None:
        text, added = model.lm_head.weight.data, model.lm_head.additional_fc.weight.data
        chosen, end = plain.token_ids[step], tokenizer.convert_tokens_to_ids(stop)
        row = text[end] if end < len(text) else added[end - len(text)]
        row[:], text[chosen] = text[chosen].clone(), row.clone()

    (cut,) = load(make_idefics(edit=end_there)).generate([item], LONG)
    assert cut.finish_reason is FinishReason.STOP
    assert cut.token_ids == plain.token_ids[:step]
    assert len(instructed.vocabulary.tokens) == len(instructed.processor.tokenizer)


def test_attention_kernels_agree_and_half_precision_answers(
    idefics_folder: Path, instructed: IdeficsModel, pages: list[Image]
) -> None:
    items = [model_input(instructed, c, pages) for c in (CONVERSATIONS[3], CONVERSATIONS[4])]
    eager = load(idefics_folder, attention="eager")
    assert eager.weights.config._attn_implementation == "eager"
    assert instructed.weights.config._attn_implementation == "sdpa"
    assert texts(eager.generate(items, LONG)) == texts(instructed.generate(items, LONG))
    half = load(idefics_folder, dtype="bfloat16")
    assert half.weights.dtype is torch.bfloat16
    assert [len(answer.token_ids) for answer in half.generate(items, 4)] == [4, 4]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers has deprecated
def test_an_adapter_is_loaded_on_top(
    idefics_folder: Path, instructed: IdeficsModel, pages: list[Image], tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    peft.get_peft_model(load(idefics_folder).weights, lora).save_pretrained(tmp_path)
    adapted = load(idefics_folder, adapter=str(tmp_path))
    item = model_input(instructed, CONVERSATIONS[0], pages)
    assert texts(adapted.generate([item], LONG)) != texts(instructed.generate([item], LONG))


def test_images_that_do_not_fit_the_prompt_are_an_error_not_an_answer(
    instructed: IdeficsModel, pages: list[Image]
) -> None:
    item = model_input(instructed, CONVERSATIONS[0], pages)
    with pytest.raises(ValueError, match="2 images for 1 places"):
        instructed.generate([ModelInput(item.prompt, item.tiles * 2)], 2)


def test_a_processor_of_another_size_is_refused(make_idefics: Callable[..., Path]) -> None:
    file = make_idefics() / "processor_config.json"
    file.write_text(file.read_text().replace(f": {EDGE}", ": 56"))
    with pytest.raises(CheckpointError, match=r"makes images of 56 pixels .* reads 42") as caught:
        load(file.parent)
    assert "\n" not in str(caught.value)
