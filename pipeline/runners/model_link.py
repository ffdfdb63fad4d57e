"""The supervisor's end of the line to the model's process."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from pipeline.models.base import Placement
from pipeline.processes import how_it_ended
from pipeline.runners.model_messages import Ready, Reply
from pipeline.runners.recipe import Question

_END_S = 60.0


class ModelProcess:
    """A running `pipeline.runners.model_process`, and the line to it."""

    def __init__(self, question: Question, placement: Placement) -> None:
        self._patience = question.job.limits.item_s
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.connection = Connection(os.dup(ours.fileno()))
            self._process = subprocess.Popen(  # noqa: S603
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "pipeline.runners.model_process",
                    str(theirs.fileno()),
                ],
                pass_fds=[theirs.fileno()],
                env=_environment(question),
            )
        # However long that takes: examples are large, and a message that breaks off is never read.
        with suppress(ConnectionError):  # dead at once: the first look at the line will tell
            self.connection.send((question, placement))

    def receive(self) -> Reply:
        """Return what it says next; once it is ready, it must read within `limits.item_s`.

        Whoever sends it more gets BlockingIOError if it does not.
        """
        reply: Reply = self.connection.recv()
        if isinstance(reply, Ready):
            timeval = struct.pack("ll", int(self._patience), int(self._patience % 1 * 1e6))
            with socket.socket(fileno=os.dup(self.connection.fileno())) as line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        return reply

    def end(self) -> str:
        """Kill the process if it lives; return what it died of."""
        self._process.kill()
        self.connection.close()
        try:
            return how_it_ended(self._process.wait(_END_S))
        except subprocess.TimeoutExpired:  # in the hands of a driver that does not answer
            return "cannot be ended"


def _environment(question: Question) -> dict[str, str]:
    """Return this process's environment without the documents' password."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop(question.job.input.password_env or "", None)
    return environment
