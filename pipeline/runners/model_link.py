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
from pipeline.runners.recipe import Question

_END_S = 60.0


class ModelProcess:
    """A running `pipeline.runners.model_process`, and the line to it."""

    def __init__(self, question: Question, placement: Placement) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            patience = question.job.limits.item_s
            timeval = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
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
        with suppress(OSError):  # dead at once: the first look at the line will tell
            self.connection.send((question, placement))

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
