"""A job's instructions, question and examples -> the conversation that a sample is put into.

The prompt is a template: `{page}` is where a page's image goes, `{text}` where the text layers of
the sample's pages do. Of several `{page}`, each takes one page in order, the last one all that are
left, and those without a page vanish. Without `{page}` the images follow the text, unless there is
a `{text}`: then the model sees no image at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.conversation import Conversation, Role, Slot, Turn
from pipeline.job import Job
from pipeline.schema import Schema, default_prompt

_OCR = "Transcribe all text of {the}, line by line, in reading order."
_ASK = "Answer from what {}, with one JSON object and nothing else."
_SLOT = re.compile(r"(\{page\}|\{text\})")


@dataclass(frozen=True, slots=True)
class Shown:
    """An example as a conversation has it: its images, its pages' printed text, its answer."""

    images: int
    text: str
    answer: str


Template = tuple[str | Slot, ...]
"""Instructions as text, and places for one image (or all that are left) and for pages' text."""

_SLOTS = {"{page}": Slot.IMAGE, "{text}": Slot.TEXT}


def parsed(prompt: str) -> Template:
    """Read a prompt of a job's, the only text in which slots have a meaning."""
    return tuple(_SLOTS.get(piece, piece) for piece in _SLOT.split(prompt) if piece)


def template_of(job: Job, schema: Schema) -> Template:
    """Return the job's instructions, written from the schema if it has none.

    A question stands before a prompt of the job's own.
    """
    if job.prompt is not None:
        asked = () if job.question is None else (f"{job.question}\n",)
        return (*asked, *parsed(job.prompt))
    pages = job.unit == "document"
    if job.task == "ocr":
        return (_OCR.format(the="these pages" if pages else "this page"),)
    if job.task == "ask":
        states = "the pages state" if pages else "the page states"
        return (f"{job.question}\n{_ASK.format(states)}",)
    return (default_prompt(schema, pages=pages),)


def shows_images(template: Template) -> bool:
    """Return True if samples put into the template show the pages' images."""
    return Slot.IMAGE in template or Slot.TEXT not in template


def conversation(
    template: Template, n_pages: int, preamble: str | None = None, examples: tuple[Shown, ...] = ()
) -> Conversation:
    """Return what a sample of `n_pages` is put into: preamble, examples, then what is asked."""
    turns = [] if preamble is None else [Turn(Role.SYSTEM, (preamble,))]
    for example in examples:
        turns.append(_user(template, example.images, example.text))
        turns.append(Turn(Role.ASSISTANT, (example.answer,)))
    return (*turns, _user(template, n_pages, Slot.TEXT))


def _user(template: Template, n_pages: int, text: str | Slot) -> Turn:
    if Slot.IMAGE not in template and shows_images(template):
        template = (*template, Slot.IMAGE)
    left, slots = n_pages, template.count(Slot.IMAGE)
    parts: list[str | Slot] = []
    for piece in template:
        if piece is Slot.IMAGE:
            slots -= 1
            taken = min(left, 1) if slots else left
            parts += [Slot.IMAGE] * taken
            left -= taken
        else:
            parts.append(text if piece is Slot.TEXT else piece)
    return Turn(Role.USER, tuple(parts))
