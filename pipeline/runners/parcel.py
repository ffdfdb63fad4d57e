"""What a submitted job takes along: a folder with the job and its schema, and pagelake if asked.

The job file in it is whole: what the command line changed is in it, a schema of this machine lies
beside it as JSON, and a pydantic model has become its JSON Schema.
"""

from __future__ import annotations

import shlex
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import yaml

import pipeline
from pipeline import __version__
from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.packaged import packaged, packaged_names
from pipeline.runners import preflight
from pipeline.schema import load_schema

_PACKAGE = "pipeline"
_NOT_SENT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def pack_job(job: Job, folder: Path) -> None:
    """Write the job into a folder that a cluster can run it from. Raises SchemaError."""
    settings = job.model_dump(mode="json", by_alias=True)
    if job.schema_ref not in packaged_names("schemas"):
        schema = load_schema(job.schema_ref)
        (folder / "schemas").mkdir()
        # By its own name, which tables show and resumed runs compare.
        (folder / "schemas" / f"{schema.id}.json").write_text(schema.text, "utf-8")
        settings["schema"] = f"schemas/{schema.id}.json"
    text = yaml.safe_dump(settings, sort_keys=False)
    (folder / "job.yaml").write_text(f"# written by pagelake {__version__}\n{text}", "utf-8")
    shutil.copy(str(preflight.__file__), folder / "preflight.py")


def pack_source(folder: Path) -> Path:
    """Copy the package that this command runs from, with its schemas and jobs as a wheel has them.

    Returns the package's folder.
    """
    package = folder / _PACKAGE
    shutil.copytree(Path(pipeline.__file__).parent, package, ignore=_NOT_SENT)
    for kind in ("schemas", "jobs"):
        if not (package / kind).is_dir():
            shutil.copytree(packaged(kind), package / kind, ignore=_NOT_SENT)
    return package


def pack_wheel(wheel: Path, folder: Path) -> Path:
    """Unpack pagelake's wheel, which is plain Python; return the package's folder.

    Nothing is installed on the cluster: what the package needs must be there.
    Raises JobError if the file is no such wheel.
    """
    if not wheel.is_file():
        raise JobError(f"--wheel: there is no file '{wheel}'")
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(f"{_PACKAGE}/")]
            archive.extractall(folder, names)
    except (OSError, zipfile.BadZipFile) as error:
        raise JobError(f"--wheel {wheel}: cannot be read: {error}") from None
    if not (folder / _PACKAGE / "cli.py").is_file():
        raise JobError(f"--wheel {wheel}: holds no pagelake; make one with: pip wheel . --no-deps")
    return folder / _PACKAGE


def wheel_version(package: Path) -> str:
    """Return the version that a package's source names."""
    for line in (package / "__init__.py").read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "__version__":
            return value.strip().strip("\"'")
    return __version__


def command(arguments: Sequence[str], version: str) -> str:
    """Return the shell command that checks the cluster and runs the job from its folder."""
    run = shlex.join(["python", "-m", "pipeline.cli", "run", "job.yaml", "--json", *arguments])
    return f"python preflight.py {shlex.quote(version)} && {run}"
