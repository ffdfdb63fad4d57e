"""The model's process: answers the samples that `pipeline.runners.supervisor` sends it.

Whatever a sample does to the model, it does here: the supervisor outlives a crash, a hang or a lost
device, and knows which samples were under way.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from pipeline.errors import PagelakeError, RunError, one_line
from pipeline.models.base import Placement
from pipeline.records import Answer, Failed
from pipeline.runners.model_messages import Alive, Answered, Ask, Broken, Ready, Refused, Reply
from pipeline.runners.recipe import Question

if TYPE_CHECKING:
    from pipeline.runners.answerer import Answerer

_BEAT_S = 0.5
_PR_SET_PDEATHSIG = 1


def serve(connection: Connection) -> None:
    """Load the model that comes first, answer what follows, and return when the line is cut."""
    sending = threading.Lock()

    def send(reply: Reply) -> None:
        with sending:
            connection.send(reply)

    question, placement = connection.recv()
    answerer = _load(question, placement, send)
    if answerer is None:
        return
    send(Ready())
    threading.Thread(target=_beat, args=(answerer, send), daemon=True).start()
    while True:
        try:
            ask: Ask = connection.recv()
        except EOFError:
            return
        answerer.start(ask.sample, _teller(ask.ticket, send))


def _load(
    question: Question, placement: Placement, send: Callable[[Reply], None]
) -> Answerer | None:
    try:
        from pipeline.runners.answerer import Answerer  # torch: the question is taken in before

        return Answerer(question, placement)
    except PagelakeError as error:
        send(Refused(error))
    except Exception as error:
        name = type(error).__name__
        send(Refused(RunError(f"the model cannot be loaded: {name}: {one_line(error)}")))
    return None


def _teller(
    ticket: int, send: Callable[[Reply], None]
) -> Callable[[Answer | Failed | Exception], None]:
    def tell(outcome: Answer | Failed | Exception) -> None:
        if isinstance(outcome, Exception):  # of the engine's own, or of a lost device
            send(Broken(one_line(outcome)))
            os._exit(1)
        send(Answered(ticket, outcome))

    return tell


def _beat(answerer: Answerer, send: Callable[[Reply], None]) -> None:
    """Give a sign of life for as long as the model gets on, and only then."""
    told = answerer.progress
    while True:
        time.sleep(_BEAT_S)
        if (found := answerer.progress) != told:
            told = found
            send(Alive())


def main() -> None:
    """Serve on the socket whose descriptor is given, and end as soon as the parent does."""
    if sys.platform == "linux":
        # The line is cut when the parent is gone, but a model that hangs would not see it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Connection(int(sys.argv[1])) as connection:
        serve(connection)
    sys.stdout.flush()
    os._exit(0)  # an orderly exit would wait for threads that compute, and crash in them


if __name__ == "__main__":
    main()
