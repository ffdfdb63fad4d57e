"""Templates: where images and text layers go."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.conversation import Role, Slot, Turn, count_images
from pipeline.job import Job
from pipeline.printed import printed_text
from pipeline.prompting import Shown, conversation, parsed, shows_images, template_of
from pipeline.records import Word
from pipeline.schema import load_schema
from pipeline.schema.load import make_schema

IMAGE, TEXT = Slot.IMAGE, Slot.TEXT


def parts(template: str, n_pages: int) -> tuple[Any, ...]:
    (turn,) = conversation(parsed(template), n_pages)
    assert turn.role is Role.USER
    return turn.parts


@pytest.mark.parametrize(
    ("template", "n_pages", "expected"),
    [
        ("Read.", 1, ("Read.", IMAGE)),
        ("Read.", 3, ("Read.", IMAGE, IMAGE, IMAGE)),
        ("See {page} and read.", 2, ("See ", IMAGE, IMAGE, " and read.")),
        ("First {page} then {page} end", 1, ("First ", IMAGE, " then ", " end")),
        ("First {page} then {page} end", 2, ("First ", IMAGE, " then ", IMAGE, " end")),
        (
            "First {page} then {page} end",
            4,
            ("First ", IMAGE, " then ", IMAGE, IMAGE, IMAGE, " end"),
        ),
        ("{page}{page}", 1, (IMAGE,)),
        ("It says {text}", 2, ("It says ", TEXT)),
        ("{page} says {text}.", 1, (IMAGE, " says ", TEXT, ".")),
        ('Like {"a": 1} or {pages}', 1, ('Like {"a": 1} or {pages}', IMAGE)),
    ],
)
def test_slots_take_pages_in_order(template: str, n_pages: int, expected: tuple[Any, ...]) -> None:
    assert parts(template, n_pages) == expected
    assert shows_images(parsed(template)) == (IMAGE in expected)


def test_preamble_and_examples_stand_before_what_is_asked() -> None:
    examples = (Shown(2, "printed", '{"a": 1}'), Shown(0, "other", "{}"))
    turns = conversation(parsed("Read {text}: {page}"), 1, "You read.", examples)
    assert turns == (
        Turn(Role.SYSTEM, ("You read.",)),
        Turn(Role.USER, ("Read ", "printed", ": ", IMAGE, IMAGE)),
        Turn(Role.ASSISTANT, ('{"a": 1}',)),
        Turn(Role.USER, ("Read ", "other", ": ")),
        Turn(Role.ASSISTANT, ("{}",)),
        Turn(Role.USER, ("Read ", TEXT, ": ", IMAGE)),
    )
    assert count_images(turns) == 3


def job(**settings: Any) -> Job:
    return Job.model_validate({"input": {"paths": ["x"]}, "output": {"uri": "y"}, **settings})


def test_every_task_has_instructions_of_its_own() -> None:
    receipt, text, answer = map(load_schema, ("receipt.v1", "text.v1", "answer.v1"))
    extract = job(schema="receipt.v1")
    assert template_of(extract, receipt)[0].startswith("Read the page and answer")
    (text_of,) = template_of(job(schema="receipt.v1", unit="document"), receipt)
    assert text_of.startswith("Read the pages and answer with one JSON")
    assert template_of(job(task="ocr"), text)[0].startswith("Transcribe all text of this page")
    (asked,) = template_of(job(task="ask", question="Who {text}?"), answer)
    assert asked.startswith("Who {text}?\n")
    own = job(task="ask", question="Who {page}?", prompt="Say: {page}")
    assert template_of(own, answer) == ("Who {page}?\n", "Say: ", IMAGE)


def test_slots_in_a_schemas_own_words_have_no_meaning() -> None:
    document = {
        "type": "object",
        "properties": {"n": {"type": "string", "description": "such as {text} of {page}"}},
    }
    template = template_of(job(schema="x.json"), make_schema(document, "x", "x"))
    assert shows_images(template)
    (turn,) = conversation(template, 2)
    assert turn.parts[1:] == (IMAGE, IMAGE)
    assert "such as {text} of {page}" in str(turn.parts[0])


def test_what_a_page_prints_is_told_apart_by_lines_and_gaps() -> None:
    words = [
        Word("Tea", 0, 0, 30, 10),
        Word("2", 34, 0, 40, 10),
        Word("9.50", 90, 0, 120, 10),
        Word("Sum", 0, 20, 30, 30),
    ]
    assert printed_text([words, words[:1]]) == "Tea 2  9.50\nSum\nTea"
