"""Conversations -> prompts: one placeholder an image, and the text as the checkpoint wants it."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.conversation import Conversation, Role, Slot, Turn, count_images
from pipeline.errors import CheckpointError, JobError, one_line

TEXT_SLOT = "\ue000text\ue001"
"""Stands in a prompt where the page's text layer goes; characters of no script."""

ChatStyle = Literal["auto", "default", "plain"]


def render(
    processor: Any,
    conversation: Conversation,
    *,
    style: ChatStyle,
    schema_id: str,
    name: str,
    default: str,
    own: str | None = None,
    placeholder: str = "<image>",
) -> str:
    """Return the prompt, one `placeholder` an image.

    The token that begins a sequence stands in it only if the tokenizer does not add it by itself.

    `style` "auto" takes the checkpoint's own chat template (`own`, or the processor's), "default"
    the family's (`default`), "plain" none: the turns stand one after another, as base models want
    it. A template may also use `schema_id`, which tells a small model what it is asked for.

    Raises
    ------
    CheckpointError
        If `style` is "auto" and the checkpoint, called `name`, has no template.
    JobError
        If a text holds the placeholder.
    """
    if style == "plain":
        prompt = _plain(conversation, placeholder)
    else:
        template = default if style == "default" else own or processor.chat_template
        if template is None:
            raise CheckpointError(
                f"model.name: '{name}' has no chat template; set model.chat_template to plain for "
                "a base model, or to default for that of its family"
            )
        try:
            prompt = _templated(processor, conversation, template, schema_id)
        except Exception as error:  # a template is a program of somebody else's
            raise CheckpointError(
                f"model.chat_template: that of '{name}' does not take this conversation "
                f"({one_line(error)}); set it to default or plain, or leave preamble and examples "
                "out"
            ) from error
    if TEXT_SLOT not in prompt and any(Slot.TEXT in turn.parts for turn in conversation):
        raise CheckpointError(
            f"model.chat_template: that of '{name}' leaves out what the prompt says, and with it "
            "{text}; set it to default or plain, or show {page} alone"
        )
    if (found := prompt.count(placeholder)) != (shown := count_images(conversation)):
        raise JobError(
            f"prompt: it would show {found} images and there are {shown}; its text, the preamble "
            f"or an example holds {placeholder}, or the chat template leaves images out"
        )
    return _begun_once(prompt.strip(" \n"), processor.tokenizer)


def _begun_once(prompt: str, tokenizer: Any) -> str:
    """A template writes the token that begins a sequence, and many a tokenizer adds one too."""
    begins = tokenizer.bos_token
    added = begins is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return prompt.removeprefix(begins) if added else prompt


def _templated(processor: Any, conversation: Conversation, template: str, schema_id: str) -> str:
    # transformers complains of variables that a template does not name.
    named = {"schema_id": schema_id} if "schema_id" in template else {}
    rendered: str = processor.apply_chat_template(
        [
            {"role": turn.role.value, "content": [_content(part) for part in turn.parts]}
            for turn in conversation
        ],
        chat_template=template,
        add_generation_prompt=True,
        **named,
    )
    return rendered


def _content(part: str | Slot) -> dict[str, str]:
    if part is Slot.IMAGE:
        return {"type": "image"}
    return {"type": "text", "text": TEXT_SLOT if part is Slot.TEXT else str(part)}


def _plain(conversation: Conversation, placeholder: str) -> str:
    return "\n".join(_plain_turn(turn, placeholder) for turn in conversation)


def _plain_turn(turn: Turn, placeholder: str) -> str:
    texts = {Slot.IMAGE: placeholder, Slot.TEXT: TEXT_SLOT}
    said = "".join(texts[part] if isinstance(part, Slot) else part for part in turn.parts)
    return said + "\n" if turn.role is Role.ASSISTANT else said
