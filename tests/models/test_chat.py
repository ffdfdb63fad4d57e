"""Conversations as checkpoints want them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CheckpointError, UserError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.prompting import Shown, conversation, parsed

PUBLISHED = (
    "System: You read.<end_of_utterance>\n"
    "User: Read:<image><image><end_of_utterance>\n"
    'Assistant: {"a": 1}<end_of_utterance>\n'
    "User: Read:<image><end_of_utterance>\n"
    "Assistant:"
)


@pytest.fixture
def ask(make_checkpoint: Callable[..., Path]) -> Callable[..., str]:
    folder = make_checkpoint()

    def prompt(template: str = "Read:", template_file: bool = True, **settings: Any) -> str:
        if not template_file:
            (folder / "chat_template.jinja").unlink(missing_ok=True)
        asked = ModelSettings(**{"name": str(folder), **settings})
        turns = conversation(parsed(template), 1, "You read.", (Shown(2, "", '{"a": 1}'),))
        found = resolve(asked)
        return family_of(found).prompt(found, asked, turns, "x.v1")

    return prompt


def test_the_familys_template_is_the_published_one(ask: Callable[..., str]) -> None:
    assert ask(chat_template="default") == PUBLISHED
    assert ask("{page}Read.", chat_template="default").endswith(
        "User:<image>Read.<end_of_utterance>\nAssistant:"
    )


def test_base_checkpoints_are_asked_in_plain_text(ask: Callable[..., str]) -> None:
    assert ask(chat_template="plain") == (
        'You read.\nRead:<image><image>\n{"a": 1}\n\nRead:<image>'
    )


def test_without_a_template_the_mend_is_named(ask: Callable[..., str]) -> None:
    with pytest.raises(
        CheckpointError, match=r"no chat template; set model\.chat_template to plain"
    ):
        ask(template_file=False)
    assert ask(template_file=False, chat_template="default") == PUBLISHED


def test_text_that_would_be_taken_for_an_image_is_refused(ask: Callable[..., str]) -> None:
    with pytest.raises(UserError, match="would show 5 images and there are 3"):
        ask("What is <image>?")


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no system turns') }}", "{% if %}", "{{ messages[0].content + 'x' }}"],
)
def test_a_template_that_takes_no_such_conversation_is_one_line(
    ask: Callable[..., str], make_checkpoint: Callable[..., Path], template: str
) -> None:
    folder = make_checkpoint()
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=r"model\.chat_template: that of .* does not take"):
        ask(name=str(folder))


def test_a_template_that_leaves_out_the_pages_text_is_refused() -> None:
    settings = ModelSettings(name="nano")
    found = resolve(settings)
    with pytest.raises(CheckpointError, match=r"model\.chat_template: that of 'nano' leaves out"):
        family_of(found).prompt(found, settings, conversation(parsed("Read: {text}"), 1), "x.v1")


def test_a_tokenizer_without_end_of_utterance_stops_at_the_end_of_sequence(
    make_checkpoint: Callable[..., Path],
) -> None:
    folder = make_checkpoint(edit=lambda model, _: model.resize_token_embeddings(400))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace("<end_of_utterance>", "<never_said>"))
    settings = ModelSettings(name=str(folder), chat_template="plain")
    found = resolve(settings)
    model = family_of(found).load(found, settings, Placement(threads=1))
    assert model.vocabulary.stop_ids == (2,)
    (answer,) = model.generate([ModelInput("Text alone, no image.", ())], 5)
    assert len(answer.token_ids) == 5 or answer.finish_reason == "stop"
