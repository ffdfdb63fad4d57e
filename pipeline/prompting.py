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


def template_of(job: Job, schema: Schema) -> str:
    """Return the job's instructions, written from the schema if it has none."""
    if job.prompt is not None:
        return job.prompt
    pages = job.unit == "document"
    if job.task == "ocr":
        return _OCR.format(the="these pages" if pages else "this page")
    if job.task == "ask":
        states = "the pages state" if pages else "the page states"
        return f"{job.question}\n{_ASK.format(states)}"
    return default_prompt(schema, pages=pages)


def shows_images(template: str) -> bool:
    """Return True if samples put into the template show the pages' images."""
    return "{page}" in template or "{text}" not in template


def conversation(
    template: str, n_pages: int, preamble: str | None = None, examples: tuple[Shown, ...] = ()
) -> Conversation:
    """Return what a sample of `n_pages` is put into: preamble, examples, then what is asked."""
    turns = [] if preamble is None else [Turn(Role.SYSTEM, (preamble,))]
    for example in examples:
        turns.append(_user(template, example.images, example.text))
        turns.append(Turn(Role.ASSISTANT, (example.answer,)))
    return (*turns, _user(template, n_pages, Slot.TEXT))


def _user(template: str, n_pages: int, text: str | Slot) -> Turn:
    pieces = _SLOT.split(template)
    if "{page}" not in pieces and shows_images(template):
        pieces = [*pieces, "{page}"]
    left, slots = n_pages, pieces.count("{page}")
    parts: list[str | Slot] = []
    for piece in pieces:
        if piece == "{page}":
            slots -= 1
            taken = min(left, 1) if slots else left
            parts += [Slot.IMAGE] * taken
            left -= taken
        elif piece:
            parts.append(text if piece == "{text}" else piece)
    return Turn(Role.USER, tuple(parts))
