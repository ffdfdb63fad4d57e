"""Samples to answers in a process that they may kill: it is started again, and who did it is found.

A process that dies, or does not get on for `limits.item_s` seconds, is ended and replaced. The
samples that were under way are suspects and run one at a time, before any other: the innocent are
answered, and one that brings down `limits.attempts` processes, the last of them alone, fails as
`model_crash` or `model_timeout`. Before it does, the model must have answered a blank page: one
that answers nothing ends the run instead.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait

from pipeline.errors import ItemError, RunError
from pipeline.models.base import Placement
from pipeline.records import (
    Answer,
    Failed,
    Failure,
    FailureKind,
    Sample,
    StageName,
)
from pipeline.runners.blank import blank_sample
from pipeline.runners.model_link import ModelProcess
from pipeline.runners.model_messages import Alive, Answered, Ask, Broken, Ready, Refused, Reply
from pipeline.runners.recipe import Recipe
from pipeline.runners.steps import named
from pipeline.runners.watch import UNWATCHED, Watching

_LOOK_S = 0.5
_STARTS = 3
_LOADING_S = 3600.0  # weights may have to be fetched first
_ASLEEP_S = 30.0


@dataclass(slots=True, eq=False)
class _Ticket:
    """A sample on its way, and how many processes died with it under way."""

    sample: Sample
    future: Future[Answer | Failed] = field(default_factory=Future)
    deaths: int = 0

    def settle(self, outcome: Answer | Failed) -> None:
        """Say what became of the sample, and at which attempt."""
        attempts = self.deaths + 1
        if isinstance(outcome, Answer):
            self.future.set_result(replace(outcome, attempts=attempts))
        else:
            failure = replace(outcome.failure, attempt=attempts)
            self.future.set_result(replace(outcome, failure=failure))

    @property
    def name(self) -> tuple[str, str]:
        """What tells the sample from others, and what people call it."""
        return named(self.sample.id, self.sample.id.page_numbers)


class Supervisor:
    """Answers samples; thread-safe. Close it.

    `ended` counts the model's processes that died or were ended, each of which is replaced.
    """

    def __init__(self, recipe: Recipe, placement: Placement, watch: Watching = UNWATCHED) -> None:
        self._watch = watch
        self._start: Callable[[], ModelProcess] = lambda: ModelProcess(recipe.question, placement)
        self._limits = recipe.job.limits
        self._blank = blank_sample(recipe)
        self.ended = 0
        self._process: ModelProcess | None = None
        self._ready = False
        self._failed_starts = 0
        self._waiting: deque[_Ticket] = deque()
        self._suspects: deque[_Ticket] = deque()
        self._condemned: tuple[_Ticket, Failure] | None = None  # until the model is seen to work
        self._sent: dict[int, _Ticket] = {}
        self._last_sign = self._looked = time.monotonic()
        self._numbers = 0
        self._told = (False, 0, 0)
        self._error: Exception | None = None
        self._closed = False
        self._inbox: deque[_Ticket] = deque()
        self._lock = threading.Lock()  # of the inbox, and of the end
        self._bell, self._ring = socket.socketpair()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    def answer(self, samples: Sequence[Sample | Failed]) -> list[Answer | Failed]:
        """Answer samples, in order; those that failed in an earlier stage pass through.

        Raises
        ------
        PagelakeError
            If the model cannot be loaded, or answers nothing.
        """
        tickets = [one if isinstance(one, Failed) else _Ticket(one) for one in samples]
        self._put(one for one in tickets if isinstance(one, _Ticket))
        return [one.future.result() if isinstance(one, _Ticket) else one for one in tickets]

    def close(self) -> None:
        """End the process, whatever it is at."""
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join()

    def _put(self, tickets: Iterable[_Ticket]) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            self._inbox.extend(tickets)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # closed meanwhile
            self._ring.send(b"!")

    def _supervise(self) -> None:
        try:
            while not self._closed:
                self._take_in()
                self._look()
                self._hand_out()
                self._tell()
            error: Exception = RunError("the model's process was ended")
        except Exception as found:
            error = found
        if self._process is not None:
            self._process.end()
        with self._lock:
            self._error = error
            left = [*self._inbox, *self._waiting, *self._suspects, *self._sent.values()]
        if self._condemned is not None:
            left.append(self._condemned[0])
        for ticket in left:
            ticket.future.set_exception(error)
        self._bell.close()
        self._ring.close()

    def _take_in(self) -> None:
        """Wait until there is something to do, for a moment, and take in what has come."""
        lines: list[Connection | socket.socket] = [self._bell]
        if self._process is not None:
            lines.append(self._process.connection)
        if self._bell in wait(lines, _LOOK_S):
            self._bell.recv(1 << 16)
        while self._inbox:
            self._admit(self._inbox[0])  # which stays there, for somebody waits, if this raises
            with self._lock:
                self._inbox.popleft()

    def _admit(self, ticket: _Ticket) -> None:
        """Let a sample wait; what has ended actors before this one is a suspect from the start."""
        try:
            ticket.deaths = self._watch.tried(StageName.GENERATE, ticket.name[0])
        except ItemError as error:
            failure = Failure(StageName.GENERATE, error.kind, error.message, error.attempt)
            ticket.future.set_result(Failed(ticket.sample.id, failure))
        else:
            (self._suspects if ticket.deaths else self._waiting).append(ticket)

    def _look(self) -> None:
        """Hear what the process says; notice that it died, or does not get on."""
        process, now = self._process, time.monotonic()
        if now - self._looked > _ASLEEP_S:  # the machine was asleep, and so was the model
            self._last_sign = now
        self._looked = now
        if process is None:
            return
        try:
            while process.connection.poll():
                self._last_sign = time.monotonic()
                reason = self._hear(process.receive())
                if reason is not None:
                    process.end()
                    self._bury(FailureKind.MODEL_CRASH, reason)
                    return
        except (EOFError, OSError):
            self._bury(FailureKind.MODEL_CRASH, f"the model's process {process.end()}")
            return
        patience = self._limits.item_s if self._ready else _LOADING_S
        if (self._sent or not self._ready) and time.monotonic() - self._last_sign > patience:
            self._end_stalled(process, patience)

    def _end_stalled(self, process: ModelProcess, patience: float) -> None:
        process.end()
        message = f"the model did not get on for {patience:g} s and was ended"
        self._bury(FailureKind.MODEL_TIMEOUT, message)

    def _hear(self, reply: Reply) -> str | None:
        """Take a reply; return why the process can go on no more, if it says so."""
        match reply:
            case Answered(number, outcome):
                ticket = self._sent.pop(number)
                self._carry_out_sentence()
                ticket.settle(outcome)
            case Ready():
                self._ready, self._failed_starts = True, 0
            case Refused(error):
                raise error
            case Broken(reason):
                return reason
            case Alive():
                pass
        return None

    def _hand_out(self) -> None:
        if self._process is None:
            if not (self._waiting or self._suspects or self._condemned):
                return
            self._process, self._ready = self._start(), False
            self._last_sign = time.monotonic()
        if not self._ready:
            return
        if self._condemned is not None or self._suspects:
            if not self._sent:
                self._send(_Ticket(self._blank) if self._condemned else self._suspects.popleft())
            return
        while self._waiting and self._process is not None:
            self._send(self._waiting.popleft())

    def _tell(self) -> None:
        """Note what the model is at: one sample, or the one that has waited longest of several."""
        loads = self._process is not None and not self._ready
        told = loads, min(self._sent, default=0), len(self._sent)
        if told == self._told:
            return
        self._told = told
        if loads:
            self._watch.tell(StageName.GENERATE, "loading", "loading the model", 1)
        elif not self._sent:
            self._watch.rest()
        else:
            ticket = self._sent[min(self._sent)]
            key, label = ticket.name
            if len(self._sent) > 1:
                key, label = "several", f"{len(self._sent)} samples, the longest {label},"
            self._watch.tell(StageName.GENERATE, key, label, ticket.deaths + 1)

    def _send(self, ticket: _Ticket) -> None:
        assert self._process is not None  # noqa: S101
        if not self._sent:
            self._last_sign = time.monotonic()
        self._numbers += 1
        self._sent[self._numbers] = ticket
        try:
            self._process.connection.send(Ask(self._numbers, ticket.sample))
        except BlockingIOError:  # it has not read for `limits.item_s`
            self._end_stalled(self._process, self._limits.item_s)
        except OSError:
            pass  # dead: the next look at the line will tell

    def _bury(self, kind: FailureKind, reason: str) -> None:
        """Find out who killed the process, as far as that can be told yet."""
        self._process = None
        self.ended += 1
        if not self._ready:
            self._failed_starts += 1
            if self._failed_starts == _STARTS:
                raise RunError(f"{reason}, {_STARTS} times, while the model was loaded")
            return
        under_way = list(self._sent.values())
        self._sent.clear()
        if self._condemned is not None:
            raise RunError(f"{reason}, on a blank page too: the model answers nothing")
        for ticket in under_way:
            ticket.deaths += 1
        if len(under_way) == 1 and under_way[0].deaths >= self._limits.attempts:
            (ticket,) = under_way
            self._condemned = ticket, Failure(StageName.GENERATE, kind, reason, ticket.deaths)
        else:
            self._suspects.extendleft(reversed(under_way))

    def _carry_out_sentence(self) -> None:
        """The model works: whoever killed it alone is to blame."""
        if self._condemned is not None:
            ticket, failure = self._condemned
            self._condemned = None
            ticket.future.set_result(Failed(ticket.sample.id, failure))
