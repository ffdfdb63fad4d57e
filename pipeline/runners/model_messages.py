"""What the supervisor and the model's process say to each other, pickled.

First the supervisor sends the `Question` and the `Placement`, then an `Ask` for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PagelakeError
from pipeline.records import Answer, Failed, Sample


@dataclass(frozen=True, slots=True)
class Ask:
    """A sample to answer; `ticket` comes back with the answer."""

    ticket: int
    sample: Sample


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The model has got on since the last sign of life."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a sample."""

    ticket: int
    outcome: Answer | Failed


@dataclass(frozen=True, slots=True)
class Refused:
    """The model cannot be loaded, whoever asks."""

    error: PagelakeError


@dataclass(frozen=True, slots=True)
class Broken:
    """The model will answer nothing any more, and this process ends."""

    reason: str


Reply = Ready | Alive | Answered | Refused | Broken
