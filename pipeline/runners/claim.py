"""Whose rows an output holds: one job's, until `--fresh` replaces them.

`_pagelake/identities/{fingerprint}.json` keeps what a fingerprint was made of, so that a difference
can be named. Starting over with the same settings must not count earlier rows as done: its identity
has a salt, the id of the run that started over.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pipeline.errors import OutputError
from pipeline.lake.layout import IDENTITIES, Layout
from pipeline.lake.ledger import Ledger
from pipeline.runners.recipe import Recipe, salted

Identity = dict[str, Any]


def claim(ledger: Ledger, recipe: Recipe, *, fresh: bool) -> Recipe:
    """Return the recipe with the fingerprint that its rows are to have. Writes nothing.

    Rows of the same settings are gone on with, those of an unfinished `fresh` run first.

    Raises
    ------
    OutputError
        If the output holds rows made with other settings, and `fresh` does not say to replace them.
    """
    manifest = ledger.manifest()
    recipe = replace(recipe, finished_before=None if manifest is None else manifest.run_id)
    published = None if manifest is None else manifest.fingerprint
    held = {commit.fingerprint for commit in ledger.commits()}
    held |= set() if published is None else {published}
    known = _identities(ledger.layout, held)
    if recipe.provenance.fingerprint in held:  # whether or not its identity is still there
        known[recipe.provenance.fingerprint] = {**recipe.identity, "salt": None}
    same = {fp: found for fp, found in known.items() if _settings(found) == recipe.identity}
    unfinished = [found["salt"] for fp, found in same.items() if fp != published]
    if fresh:
        salts = sorted(_salts_begun(ledger.layout, recipe, published))
        return salted(recipe, salts[-1] if salts else recipe.provenance.run_id)
    if unfinished:
        return salted(recipe, max(unfinished, key=lambda salt: salt or ""))
    if published in same:
        return salted(recipe, same[published]["salt"])
    if held:
        other = _settings(known.get(str(published)) or next(iter(known.values()), {}))
        raise OutputError(
            f"output {ledger.layout.uri}: holds the rows of another job "
            f"({_difference(other, recipe.identity)}); choose another output.uri, or replace them "
            "with pagelake run --fresh"
        )
    return recipe


def _salts_begun(layout: Layout, recipe: Recipe, published: str | None) -> list[str]:
    """Return the salts of unfinished `fresh` runs of the recipe, those without a commit too."""
    found = {name.removeprefix(f"{IDENTITIES}/").removesuffix(".json") for name in _noted(layout)}
    return [
        identity["salt"]
        for identity in _identities(layout, found - {published}).values()
        if _settings(identity) == recipe.identity and identity["salt"] is not None
    ]


def _noted(layout: Layout) -> list[str]:
    return [name for name in layout.list(IDENTITIES) if name.endswith(".json")]


def note(layout: Layout, recipe: Recipe) -> None:
    """Write down what the recipe's fingerprint is made of. Do so before its first paper."""
    text = json.dumps({**recipe.identity, "salt": recipe.salt}, indent=1)
    layout.write_bytes(_file(recipe.provenance.fingerprint), text.encode())


def forget_others(layout: Layout, fingerprint: str) -> None:
    """Delete the identities of rows that are gone, once `fingerprint` is published."""
    for name in layout.list(IDENTITIES):
        if name != _file(fingerprint):
            layout.delete(name)


def _file(fingerprint: str) -> str:
    return f"{IDENTITIES}/{fingerprint}.json"


def _identities(layout: Layout, fingerprints: set[str]) -> dict[str, Identity]:
    names = {fingerprint: _file(fingerprint) for fingerprint in fingerprints}
    present = set(layout.list(IDENTITIES))
    return {fp: _identity(layout, name) for fp, name in names.items() if name in present}


def _identity(layout: Layout, name: str) -> Identity:
    try:
        found = json.loads(layout.read_bytes(name))
        if not isinstance(found, dict) or not isinstance(found["salt"], str | None):
            raise ValueError("it is no identity")
    except (ValueError, LookupError, RecursionError) as error:
        raise OutputError(
            f"output {layout.uri}: {name} is damaged; put a copy back, or delete it and run again, "
            "with --fresh if that asks for it"
        ) from error
    return found


def _settings(identity: Identity) -> Identity:
    return {key: value for key, value in identity.items() if key != "salt"}


def _difference(before: Identity, after: Identity) -> str:
    """Name what differs as a job file writes it; of the prompt there is only a hash to tell by."""
    if not before:
        return "made with settings that the output has no note of"
    changed = sorted(key for key in before | after if before.get(key) != after.get(key))
    return "; ".join(
        "prompt: another text"
        if key == "prompt"
        else f"{key}: {_written(before.get(key))} -> {_written(after.get(key))}"
        for key in changed
    )


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
