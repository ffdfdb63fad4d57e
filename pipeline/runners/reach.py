"""Which of a job's files lie on this machine only, so that other machines of a cluster have none.

A folder that all machines see at the same path is named in `resources.shared_paths`. Of documents
that a manifest lists nothing is known yet: one that a machine cannot read fails as
`source_missing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.models.families import is_bundled

_MENDS = {
    "output.uri": "use a store such as s3://bucket/out",
    "output.table": "use a store such as s3://bucket/table",
    "input.paths": "put the documents into a store such as s3://bucket/in",
    "input.manifest": "put it into a store such as s3://bucket/in.csv",
    "examples.pages": "put them into a store such as s3://bucket/examples",
    "model.name": "use a hub id (owner/name), or a folder in a store such as s3://bucket/model",
    "model.adapter": "use a hub id (owner/name)",
}


def refuse_unshared(job: Job, others: str) -> None:
    """Raise JobError, naming the key and the mend, if the job needs files of this machine alone.

    `others` says in words which machines cannot see them.
    """
    for key, place in _places(job):
        path = _local_path(place)
        if path is not None and not _is_shared(path, job):
            raise JobError(
                f"{key}: '{place}' is on this machine only, and {others}; {_MENDS[key]}, or list a "
                "folder that all machines see at the same path under resources.shared_paths"
            )


def _places(job: Job) -> Iterator[tuple[str, str]]:
    yield "output.uri", job.output.uri
    if job.output.format == "delta" and job.output.table is not None:
        yield "output.table", job.output.table
    for path in job.input.paths:
        yield "input.paths", path
    if job.input.manifest is not None:
        yield "input.manifest", job.input.manifest
    for example in job.examples:
        for path in example.pages:
            yield "examples.pages", path
    if job.model.family != "fake" and not is_bundled(job.model.name) and _is_folder(job.model.name):
        yield "model.name", job.model.name
    if job.model.adapter is not None and _is_folder(job.model.adapter):
        yield "model.adapter", job.model.adapter


def _is_folder(name: str) -> bool:
    """Return True for what is no hub id: a path, or a folder that has the name of one."""
    return name.startswith((".", "/", "~", "file://")) or Path(name).is_dir()


def _local_path(place: str) -> str | None:
    """Return the absolute path of a place on this machine's disks, None if it is elsewhere."""
    if place.startswith("file://"):
        return os.path.normpath("/" + unquote(place.removeprefix("file://")).lstrip("/"))
    if "://" in place:
        return None
    return os.path.normpath(Path(place).expanduser().absolute())


def _is_shared(path: str, job: Job) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in job.resources.shared_paths)
