"""Conversations -> prompts, to the letter those of a run, at the price of one rendering for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.conversation import Role, Slot, Turn
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Family
from pipeline.models.chat import TEXT_SLOT

_BLANK = " \n"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Characters of a text, from `start` up to `end`."""

    start: int
    end: int


class Phrasing:
    """Renders conversations as `family` does, by skeletons: texts are put in afterwards.

    To render takes a family some tenths of a second, because it loads its processor.
    """

    def __init__(
        self,
        family: Family,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        schema_id: str,
        stops: Sequence[str],
        eos: str,
        *,
        may_lead: bool,
    ) -> None:
        """`stops` are the tokens that end an answer, `eos` the one that does where the template
        has none; answers that `may_lead` may begin with a blank, where the template writes one.
        """
        self._family, self._checkpoint, self._settings = family, checkpoint, settings
        self._schema_id = schema_id
        self._stops, self._eos, self._may_lead = stops, eos, may_lead
        self._skeletons: dict[tuple[Turn, ...], str] = {}

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Return the conversation as `Family.prompt` does.

        Raises
        ------
        UserError
            As `Family.prompt`, if the checkpoint cannot be asked so.
        """
        texts: list[str] = []

        def hollow(part: str | Slot) -> str | Slot:
            if isinstance(part, Slot):
                return part
            texts.append(part)
            return _slot(len(texts) - 1)

        skeleton = tuple(Turn(turn.role, tuple(map(hollow, turn.parts))) for turn in turns)
        if skeleton not in self._skeletons:
            self._skeletons[skeleton] = self._family.prompt(
                self._checkpoint, self._settings, skeleton, self._schema_id
            )
        prompt = self._skeletons[skeleton]
        for number, text in enumerate(texts):
            prompt = prompt.replace(_slot(number), text)
        return prompt.strip(_BLANK)

    def answered(self, turns: Sequence[Turn], answer: str) -> str:
        """Return what the model should write to answer a conversation, its end token included."""
        prompt = self.prompt(turns)
        after = self.prompt([*turns, Turn(Role.ASSISTANT, (_slot(0),))])
        # A template that says nothing of earlier answers leaves the answer bare.
        rest = after.removeprefix(prompt) if after.startswith(prompt) else ""
        lead, mark, tail = rest.partition(_slot(0))
        if not mark or lead.strip(_BLANK):
            return answer + self._eos
        lead = lead if lead == " " and self._may_lead else ""
        return lead + answer + (self._stop(tail) or self._eos)

    def stretch(self, text: str, start: int, answer: str) -> Stretch:
        """Return where in a text, behind `start`, an earlier answer stands, with its end.

        Raises
        ------
        CheckpointError
            If the chat template does not show it.
        """
        rest = text[start:].lstrip(_BLANK)
        begin = len(text) - len(rest)
        if not answer or not rest.startswith(answer):
            raise CheckpointError(
                f"model.name: the chat template of '{self._checkpoint.name}' shows no earlier "
                "answers; give each turn a row of its own"
            )
        end = begin + len(answer)
        if text[start:begin] == " " and self._may_lead:
            begin = start
        return Stretch(begin, end + len(self._stop(text[end:])))

    def _stop(self, tail: str) -> str:
        return next((stop for stop in self._stops if tail.startswith(stop)), "")


def _slot(number: int) -> str:
    """Characters of no script that stand for a text, as `TEXT_SLOT` does for a page's."""
    return f"{TEXT_SLOT[0]}{number}{TEXT_SLOT[-1]}"
