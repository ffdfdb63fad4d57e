"""What commands share: the line for people, exit codes, and Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from pipeline.errors import printable

EXIT_OK, EXIT_RUN_FAILED, EXIT_USER_ERROR, EXIT_NOT_ALL_OK, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
EXIT_IN_USE = 99
"""Of an ingest whose output another run holds: what Airflow's BashOperator takes for "skipped"."""

_RUN_AGAIN = "stopped; what was committed stays, run the same command again to continue"

people = Console(stderr=True, emoji=False)


def complain(message: str) -> None:
    """Print one line for people."""
    people.print(f"pagelake: {printable(message)}", highlight=False, markup=False, soft_wrap=True)


def counted(count: int, thing: str) -> str:
    """Write "1 page", and "2,000 pages"."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


@contextmanager
def interruptible(what_now: str = _RUN_AGAIN) -> Iterator[None]:
    """Turn Ctrl-C into one line, `what_now`, and an exit code; typer would swallow it."""
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except BaseException as error:
        # What is interrupted may fail in ways of its own: Ray makes an exit of it now and then.
        if not (asked or isinstance(error, KeyboardInterrupt)):
            raise
        complain(what_now)
        # An orderly exit would tear down a model that is still computing, and crash in its threads.
        os._exit(EXIT_INTERRUPTED)
    finally:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
