"""From an output to its lake table: which one a job means, and bringing it up to date."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pipeline.credentials import without_secrets
from pipeline.errors import JobError, OutputError, PagelakeError, RunError, printable
from pipeline.job import Job
from pipeline.lake.lake_table import RUN, LakeTable
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Manifest
from pipeline.lake.published import is_noted, note
from pipeline.lake.store_errors import FINAL_CODES
from pipeline.lake.stores import Stores
from pipeline.lake.tables import documents_schema
from pipeline.lake.types import arrow_type
from pipeline.lake.upsert import Documents, Plan, Upserted, load_checked, upsert
from pipeline.output_settings import Output

NAMESPACE: Final = "pagelake"
"""Where tables lie that a job gives no name."""

_MISTAKES: Final = frozenset(
    {"UnauthorizedError", "ForbiddenError", "OAuthError", "BadRequestError", "NotInstalledError"}
    | {"ValidationError", "TableNotFoundError", "SchemaMismatchError"}
)
"""Errors of pyiceberg and deltalake, which are imported only where a job needs them."""

_PACKAGES: Final = {"iceberg": "pyiceberg", "delta": "deltalake"}


def check(job: Job, layout: Layout, schema_id: str, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Find out before any work whether a job's table can be reached and can hold its documents.

    Returns warnings.

    Raises
    ------
    UserError
        If it cannot, by the user's doing.
    RunError
        If the table cannot be reached, which may pass.
    """
    if job.output.format == "parquet":
        return ()
    try:
        with _opened(job, layout) as table:
            load_checked(table, documents_schema(arrow_type(schema)))
            table.files()  # refuses those that cannot be read
            return _other_version(table, schema_id, schema)
    except PagelakeError:
        raise
    except Exception as error:  # of a catalog's or store's own client, which may be any
        said = f"output.format {job.output.format}: the table cannot be reached ({_said(error)})"
        if _is_mistake(error):
            raise OutputError(
                f"{said}; check output.table, output.catalog, stores and the credentials"
            ) from error
        raise RunError(f"{said}; run again when it can be") from error


def _other_version(table: LakeTable, schema_id: str, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Warn of rows of another schema that has the same id: they are replaced, not stood beside."""
    for told in table.told():
        if told.get("pagelake.schema_id") == schema_id:
            if told.get("pagelake.schema_sha256", _sha256(schema)) == _sha256(schema):
                return ()
            return (
                f"{table.label} has rows of another schema named {schema_id}, and this job's rows "
                "take the place of those of the same documents; to keep both, give the new schema "
                "an $id of its own (or a file name, if it has no $id)",
            )
    return ()


def _sha256(schema: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:16]


def publish(job: Job, layout: Layout, manifest: Manifest, *, once: bool = False) -> Upserted | None:
    """Bring the documents of a finished output into the job's table, None if it has none.

    With `once`, not if the output's note or a snapshot of late says that this run did so: None
    then, too. Jobs that share a table would else take turns for ever, each with its own row of a
    document.

    Raises
    ------
    OutputError
        If the table cannot hold them.
    RunError
        If it cannot be reached, or others commit to it without end. The output stays as it is, and
        the next run tries again.
    """
    if job.output.format == "parquet":
        return None
    schema = documents_schema(arrow_type(manifest.schema))

    def properties(plan: Plan) -> Mapping[str, str]:
        return _properties(manifest, plan, len(plan.write))

    try:
        with _opened(job, layout) as table:
            done = None
            if not (once and _has_run(table, layout, manifest.run_id)):
                done = upsert(table, Documents.of(layout, manifest.documents, schema), properties)
            identity = table.identity()
    except PagelakeError:
        raise
    except Exception as error:  # of a catalog's or store's own client, which may be any
        raise RunError(
            f"output {layout.uri} is finished, and its {job.output.format} table is not up to date "
            f"({_said(error)}); run again to bring it there"
        ) from error
    if identity is not None:
        note(layout, manifest.run_id, identity)
    return done


def _has_run(table: LakeTable, layout: Layout, run_id: str) -> bool:
    """Say whether a table has what a run made. A run killed before it noted so left a snapshot."""
    table.load()
    identity = table.identity()
    if identity is None:
        return False
    noted = is_noted(layout, run_id, identity)
    return noted or any(told.get(RUN) == run_id for told in table.told())


def _properties(manifest: Manifest, plan: Plan, n_documents: int) -> dict[str, str]:
    """Say of a snapshot where it comes from."""
    provenance = manifest.provenance
    counts = {
        "inserted": plan.inserted,
        "replaced": plan.replaced,
        "unchanged": n_documents - plan.inserted - plan.replaced,
        **{f"documents.{state}": n for state, n in sorted(manifest.counts.documents.items())},
    }
    names = ("run_id", "fingerprint", "schema_id", "pipeline_version")
    told = {name: getattr(provenance, name) for name in names}
    told["version"] = told.pop("pipeline_version")
    told["schema_sha256"] = _sha256(manifest.schema)
    return {f"pagelake.{name}": str(value) for name, value in {**told, **counts}.items()}


@contextmanager
def _opened(job: Job, layout: Layout) -> Iterator[LakeTable]:
    package = _PACKAGES[job.output.format]
    if importlib.util.find_spec(package) is None:
        raise JobError(
            f"output.format {job.output.format}: needs the {package} package; "
            f"pip install pagelake[{job.output.format}]"
        )
    table = _delta(job) if job.output.format == "delta" else _iceberg(job, layout)
    try:
        yield table
    finally:
        table.close()


def _delta(job: Job) -> LakeTable:
    from pipeline.lake.delta import DeltaLakeTable

    return DeltaLakeTable(job.output.table or _inside(job.output), Stores.of(job.stores))


def _inside(output: Output) -> str:
    """Return where the table lies that is given no place: a URI keeps its query at the end."""
    place, mark, query = output.uri.partition("?") if output.in_store else (output.uri, "", "")
    return f"{place.rstrip('/')}/delta{mark}{query}"


def _iceberg(job: Job, layout: Layout) -> LakeTable:
    from pipeline.lake.iceberg import IcebergTable, embedded_catalog, named_catalog

    name = job.output.table or f"{NAMESPACE}.{_identifier(job.name)}"
    if job.output.catalog is not None:
        catalog = named_catalog(job.output.catalog, Stores.of(job.stores), job.output.uri)
        return IcebergTable(catalog, name)
    folder = layout.local("iceberg")
    if folder is None:  # the job's own check refuses stores
        raise JobError("output.catalog is missing; an output in a store needs one")
    return IcebergTable(embedded_catalog(folder), name)


def _identifier(name: str) -> str:
    """Make a table's name of a job's: letters, digits and _, as every engine takes them."""
    return re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "documents"


def _is_mistake(error: Exception) -> bool:
    """Return True if a client's error is one that trying again cannot mend."""
    wrong = ValueError | PermissionError | FileNotFoundError
    known = isinstance(error, wrong) or type(error).__name__ in _MISTAKES
    return known or _code(error) in FINAL_CODES


def _code(error: Exception) -> str | None:
    """Return the code of a store's answer, which clients quote as the XML that it is."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else None


def _said(error: Exception) -> str:
    """Return what a client says as one line, without secrets; deltalake's own is coloured."""
    if (code := _code(error)) is not None:
        return f"its store answers {code}"
    said = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return printable(without_secrets(said))[:300] or type(error).__name__
