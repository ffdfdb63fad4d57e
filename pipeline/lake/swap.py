"""The end of a run: its tables take the place of the old ones, and what nobody reads any more goes.

A run that is killed in the midst of it leaves files of old and new rows side by side. Readers that
ask the manifest see one table or the other; a plain glob would see both, until `heal`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.lake.ledger import Ledger, Manifest, Snapshot


def swap(
    ledger: Ledger, found: Snapshot, manifest: Manifest, before_publishing: Callable[[], None]
) -> Manifest:
    """Publish the manifest of a finished run, delete what it replaces, and return it as it is then.

    `found` is what the tables were made of: what has arrived since stays as it is.
    """
    before_publishing()
    ledger.publish(manifest)
    ledger.sweep(replace(found, manifest=manifest))
    return _forget_folded(ledger, manifest, before_publishing)


def heal(ledger: Ledger, before_publishing: Callable[[], None]) -> None:
    """End what a killed run had begun to swap, or write for it. Nothing is written if none had.

    Pages that killed runs committed stay. No other run may be writing to the output.
    """
    found = ledger.snapshot()
    if found.orphans():
        before_publishing()
        ledger.sweep(found)
    if found.manifest is not None and found.manifest.folded:
        _forget_folded(ledger, found.manifest, before_publishing)


def _forget_folded(
    ledger: Ledger, manifest: Manifest, before_publishing: Callable[[], None]
) -> Manifest:
    manifest = replace(manifest, folded={})  # no such commit is there any more
    before_publishing()
    ledger.publish(manifest)
    return manifest
