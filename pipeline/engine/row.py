"""One answer under way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pipeline.engine.draft import Drafter
from pipeline.engine.grammar import GrammarState
from pipeline.engine.request import Request
from pipeline.models.stepping import PromptTokens
from pipeline.records import FinishReason, Generation

_EXIT_EVERY = 16


@dataclass(frozen=True, slots=True)
class Exit:
    """The answer up to token `at` is a whole record with the tokens `closing` behind it."""

    at: int
    closing: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Row:
    """A request in a slot.

    `pending` are tokens of the answer whose keys and values are not in the slot yet: the last one
    chosen, and those that the grammar forced after it. `cached` counts those that are, the
    prompt's among them. `draft` are guesses for what comes behind `pending`.
    """

    request: Request
    future: Future[Generation]
    prompt: PromptTokens
    grammar: GrammarState | None
    drafter: Drafter | None
    stop_ids: frozenset[int]
    submitted: float
    slot: int = -1
    cached: int = 0
    pending: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    exit: Exit | None = None
    forced: int = 0
    drafted: int = 0
    passes: int = 0
    started: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    @property
    def remaining(self) -> int:
        """How many tokens the answer may still get."""
        return self.request.max_new_tokens - len(self.ids)

    def begin(self) -> None:
        """Write down what the grammar forces before the model is asked at all.

        That may be all there is to write.
        """
        self.pending = self._force()

    def look_ahead(self) -> None:
        """Guess what comes behind `pending`."""
        if self.drafter is not None:
            self.draft = self.drafter.guess(self.ids)[: max(0, self.remaining - 1)]

    @property
    def asked(self) -> list[int]:
        """The tokens of the row's next step."""
        return [*self.pending, *self.draft]

    def take(self, chosen: Sequence[int], logprobs: Sequence[float]) -> None:
        """Go on by what the model chose behind `pending`, and behind each token of `draft`.

        The draft counts up to where the answer goes on otherwise.
        """
        self.passes += 1
        self.cached += len(self.pending)
        self.pending = []
        right = 0
        while True:
            new = [chosen[right]]
            self._append(chosen[right], logprobs[right])
            if self.finish is None:
                new += self._force()
            if self.finish is not None:
                return
            agreed = _agreement(new, self.draft[right:])
            self.cached += agreed
            right += agreed
            if agreed < len(new):
                self.pending = new[agreed:]
                break
            self.drafted += 1
        self._look_for_exit()

    def _append(self, token: int, logprob: float) -> None:
        if math.isnan(logprob):
            raise FloatingPointError("the model's scores are not numbers")
        if token in self.stop_ids:
            if self.grammar is not None:
                self.grammar.end()
            self.finish = FinishReason.STOP
            return
        if self.grammar is not None:
            self.grammar.accept(token)
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.remaining == 0:
            self.finish = FinishReason.LENGTH
            self._leave_by_exit()

    def _force(self) -> list[int]:
        """Append what the grammar leaves no choice about, and return it; it costs no pass."""
        appended: list[int] = []
        while self.grammar is not None and (forced := self.grammar.forced()):
            for token in forced:
                self._append(token, 0.0)
                if self.finish is not None:
                    return appended
                appended.append(token)
                self.forced += 1
        return appended

    def _look_for_exit(self) -> None:
        """Late in the budget, note now and then how the answer could still be closed."""
        if self.grammar is None or self.remaining > self.request.max_new_tokens // 4:
            return
        since = len(self.ids) - (self.exit.at if self.exit else 0)
        if since >= _EXIT_EVERY:
            closing = self.grammar.closing(self.remaining)
            if closing is not None:
                self.exit = Exit(len(self.ids), tuple(closing))

    def _leave_by_exit(self) -> None:
        """End a cut answer as a whole, if shorter, record; it still counts as cut."""
        if self.exit is not None:
            self.ids[self.exit.at :] = self.exit.closing
            self.logprobs[self.exit.at :] = [0.0] * len(self.exit.closing)


def _agreement(tokens: Sequence[int], guesses: Sequence[int]) -> int:
    """Return how many tokens were guessed right, up to the first that was not."""
    for place, (token, guess) in enumerate(zip(tokens, guesses, strict=False)):
        if token != guess:
            return place
    return min(len(tokens), len(guesses))
