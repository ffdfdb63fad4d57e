"""The error tree.

::

    PagelakeError
    ├── UserError              the user's input is wrong: one line, exit code 2
    │   ├── JobError           a job file, one of its keys, or a command-line option
    │   ├── SchemaError        a JSON Schema that cannot be used
    │   ├── InputError         an input path, glob or manifest
    │   ├── CheckpointError    a model that cannot be found or loaded as asked
    │   └── OutputError        an output that cannot be written, or belongs to another job
    │       └── OutputInUseError   an output that another run writes to now
    ├── RunError               the run itself failed: exit code 1
    │   └── ConservationError  rows and plan disagree: a document or page is missing or doubled
    ├── ClusterError           a cluster does not answer; of its jobs that says nothing: exit code 1
    │   └── NotSubmittedError  a cluster that took no job
    └── ItemError              one document, page or sample failed; becomes a `Failure` row

An `ItemError` never leaves a stage: it is caught at the stage's door and travels on as data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.records import FailureKind


class PagelakeError(Exception):
    """Root of every error this package raises on purpose."""


class UserError(PagelakeError):
    """The user's input is wrong. The message is one printable line: what, where, and the mend."""

    def __init__(self, message: str) -> None:
        super().__init__(_ends_of(printable(message)))


class JobError(UserError):
    """A job file, one of its keys, or a command-line option is wrong."""


class SchemaError(UserError):
    """A schema is not valid JSON Schema 2020-12, or uses what cannot be decoded or stored."""


class InputError(UserError):
    """An input path, glob or manifest cannot be used."""


class CheckpointError(UserError):
    """A model cannot be found, or cannot be loaded the way the job asks."""


class OutputError(UserError):
    """The output cannot be written, or holds the rows of a different job."""


class OutputInUseError(OutputError):
    """Another run writes to the output: nothing has been done."""


class RunError(PagelakeError):
    """The run failed for a reason that is not one item's."""


class ConservationError(RunError):
    """The committed rows do not add up to the plan (see law 1 in docs/ARCHITECTURE.md)."""


class ClusterError(PagelakeError):
    """A cluster's job server does not answer, or is in trouble: what it runs may go on."""


class NotSubmittedError(ClusterError):
    """A cluster answers and takes no job: nothing runs there."""


class ItemError(PagelakeError):
    """One item failed; `kind` says how, and `attempt` which try it was that failed.

    `message` is one printable line of bounded length.
    """

    def __init__(self, kind: FailureKind, message: str, attempt: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = one_line(self)
        self.attempt = attempt


def _ends_of(line: str) -> str:
    """A line that quotes too much of a file, without its middle: the mend stands at the end."""
    return line if len(line) <= 1000 else f"{line[:700]} ... {line[-295:]}"


def one_line(error: BaseException) -> str:
    """Return what an error says as one printable line of at most 300 characters."""
    return printable(str(error))[:300]


def printable(text: str) -> str:
    """Return text as one line of what a terminal and a table can show.

    Errors quote file names and documents: escape codes, lone surrogates and their like become
    blanks.
    """
    kept = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(kept.split())
