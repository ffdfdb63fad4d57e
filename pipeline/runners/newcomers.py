"""What an ingest takes in: of what is listed, what the published table does not have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.lake.ingested import Ingested, untold
from pipeline.lake.keys import Keys
from pipeline.lake.ledger import Ledger
from pipeline.records import FailureKind
from pipeline.runners.recipe import Recipe

Mask = NDArray[np.bool_]


class Newcomers:
    """Picks documents as they are listed, admits them once they are planned, and counts them."""

    def __init__(self, ingested: Ingested, limit: int | None = None) -> None:
        self._ingested = ingested
        self._room = self._seats = limit  # to pick, and to admit
        self._new = self._changed = self._again = self._unchanged = self._waiting = 0

    @classmethod
    def of(
        cls,
        ledger: Ledger,
        recipe: Recipe,
        limit: int | None,
        retry: frozenset[FailureKind] | None,
    ) -> Newcomers:
        """Look at what the output's manifest names.

        Raises
        ------
        OutputError
            If a run that starts the table over has begun: it has to list all documents.
        """
        manifest = ledger.manifest()
        if manifest is not None and manifest.fingerprint != recipe.provenance.fingerprint:
            raise OutputError(
                f"output {ledger.layout.uri}: a run with --fresh has not finished; end it with "
                "pagelake run, and ingest then"
            )
        return cls(Ingested(ledger.layout, manifest, retry or frozenset()), limit)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many documents were listed, by what they are to the table."""
        return {
            "new": self._new,
            "changed": self._changed,
            "retried": self._again,
            "unchanged": self._unchanged,
            "waiting": self._waiting,
        }

    def pick(self, documents: pa.Table, keys: Keys) -> Mask:
        """Say which listed documents to plan: what is new, as far as one can say unread.

        What tells no version is always among them, whatever the limit: only its content says
        whether it is new.
        """
        picked = ~self._ingested.unchanged(documents, keys)
        self._unchanged += int(np.count_nonzero(~picked))
        if self._room is not None:
            told = np.flatnonzero(picked & ~untold(documents))
            picked[told[self._room :]] = False
            self._waiting += len(told[self._room :])
            self._room -= len(told[: self._room])
        return picked

    def admit(self, planned: pa.Table) -> Mask:
        """Say which planned documents are new or changed indeed, and not too many."""
        same = self._ingested.same(planned)
        self._unchanged += int(np.count_nonzero(same))
        admitted = np.flatnonzero(~same)
        if self._seats is not None:
            self._waiting += len(admitted[self._seats :])
            admitted = admitted[: self._seats]
            self._seats -= len(admitted)
        uris, versions = self._ingested.ingested_before(planned.take(pa.array(admitted)))
        self._new += int(np.count_nonzero(~uris))
        self._changed += int(np.count_nonzero(uris & ~versions))
        self._again += int(np.count_nonzero(versions))
        mask = np.zeros(planned.num_rows, np.bool_)
        mask[admitted] = True
        return mask
