"""Which lake tables have a run's documents: a note in the output, `_pagelake/published`.

::

    {"run_id": the run, "tables": [what tells each table from any other]}

A run that changed nothing leaves no snapshot to tell of it, and tables forget old ones. What is
noted is compared only, so a note that is damaged or anybody's does no harm: it is as if there were
none.
"""

from __future__ import annotations

import json

from pipeline.lake.layout import PUBLISHED, Layout


def is_noted(layout: Layout, run_id: str, table: str) -> bool:
    """Say whether a table is noted to have what a run made."""
    return table in _tables(layout, run_id)


def note(layout: Layout, run_id: str, table: str) -> None:
    """Note that a table has what a run made; what was noted of earlier runs is dropped."""
    tables = _tables(layout, run_id)
    if table not in tables:
        found = {"run_id": run_id, "tables": [*tables, table]}
        layout.write_bytes(PUBLISHED, json.dumps(found).encode())


def _tables(layout: Layout, run_id: str) -> list[str]:
    try:
        found = json.loads(layout.read_bytes(PUBLISHED))
        tables = found["tables"] if found["run_id"] == run_id else []
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return []
    return [one for one in tables if isinstance(one, str)] if isinstance(tables, list) else []
