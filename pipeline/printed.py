"""What text layers print, as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.records import Word

_TOKEN_LIKE = re.compile(r"([<\[])(?=[^\s<>\[\]]{1,60}[>\]])")


def harmless(text: str) -> str:
    """Part what looks like a special token, so that no page can put words in the model's mouth."""
    return _TOKEN_LIKE.sub(r"\1 ", text)


def printed_text(pages: Sequence[Sequence[Word]]) -> str:
    """Return what pages' text layers print, line by line.

    Two spaces stand where the words are further apart than they are high.
    """
    lines: list[str] = []
    for page in pages:
        before: Word | None = None
        for word in page:
            if before is None or word.left < before.left or word.top > _middle(before):
                lines.append(word.text)
            else:
                far = word.left - before.right > before.bottom - before.top
                lines[-1] += ("  " if far else " ") + word.text
            before = word
    return "\n".join(lines)


def _middle(word: Word) -> float:
    return (word.top + word.bottom) / 2
