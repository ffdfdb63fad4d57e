"""Mutated job files and `--set` values: a job, or a user's error of one line without secrets."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

from fuzz_frame import Escape, require_one_line
from mutate import text_mutate

from pipeline.credentials import holds_credentials
from pipeline.errors import UserError
from pipeline.job import Job
from pipeline.jobfile import load_job
from pipeline.schema import is_path, load_schema

_SECRET = "tr0ub4dor-and-3"
_URI = "s3://AKIAEXAMPLE:{}@bucket/key".format("hunter2/secret")
_FILES = (
    """\
name: receipts
input:
  paths: [scans, "more/**/*.pdf"]
  pages: 1-3,7
  password_env: FUZZ_PASSWORD
schema: receipt.v1
model: {name: nano, dtype: float32}
generation:
  max_new_tokens: 512
render: {cpu_s: 5, memory_mb: 256}
output:
  uri: out/receipts
""",
    """\
input: {manifest: table.csv, uri_column: file}
task: ocr
prompt: |
  Read all of it.
resources:
  actors: {min: 1, max: 2}
limits: {item_s: 60, attempts: 2}
output: {uri: "s3://bucket/out"}
""",
)
_SETS = (
    *("model.dtype=float32", "input.pages=5-", "output.uri=out", "render.cpu_s=1e3", "prompt=a: b"),
    *("resources.actors={min: 1}", "input.paths=[a, b]", "limits.attempts=2", "schema=invoice.v1"),
)
_POOL = (
    *("input:", "paths:", "schema:", "output:", "model: x", "  ", "stages: 1", _URI, f'"{_URI}"'),
    *("password_env: NOT_SET", "receipt.v1", "./a.json", "1-3,7", "5-", "-0", "9" * 5_000, "1e400"),
    *(
        "\ufeff",
        "a" * 70_000,
        "a." * 30_000,
        "://" * 9_000,
        "!!omap [a]",
        "!!set {a}",
        "!!pairs [1]",
    ),
    *("!<" + _URI + "> x", "&a [*a]", "&a {b: *a}", "9:" * 400 + "0.0", "{[a]: b}", "? [a]\n: b"),
)
_SEPARATOR = b"\0\0--set\0\0"


class Jobs:
    """A job file a case, and what follows a separator are values of `--set`."""

    name = "job"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._old = os.environ.get("FUZZ_PASSWORD")
        os.environ["FUZZ_PASSWORD"] = _SECRET

    def make(self, chance: random.Random) -> tuple[str, bytes]:
        text, sets = chance.choice(_FILES), chance.sample(_SETS, chance.choice((0, 0, 1, 3)))
        if sets and chance.random() < 0.6:
            way, sets[0] = text_mutate(chance, sets[0], _POOL)
            way = f"set {way}"
        else:
            way, text = text_mutate(chance, text, _POOL)
        parts = [part.encode("utf-8", "surrogatepass") for part in (text, *sets)]
        return way, _SEPARATOR.join(parts)

    def judge(self, case: bytes) -> str:
        text, *parts = case.split(_SEPARATOR)
        path = self._folder / "job.yaml"
        path.write_bytes(text)
        sets = [part.decode("utf-8", "surrogatepass") for part in parts]
        try:
            job = load_job(str(path), sets)
            self._check(job)
            if is_path(job.schema_ref) or ":" not in job.schema_ref:
                load_schema(job.schema_ref)
        except UserError as error:
            message = str(error)
            require_one_line(message, 1_000)
            if _SECRET in message or holds_credentials(message):
                raise Escape(f"a secret is shown: {message}") from error
            return type(error).__name__
        return "a job"

    def _check(self, job: Job) -> None:
        shown = [*job.input.paths, job.input.manifest or "", job.output.uri]
        if _SECRET in repr(job) or any(map(holds_credentials, shown)):
            raise Escape(f"a secret is kept: {shown}")

    def close(self) -> None:
        shutil.rmtree(self._folder)
        del os.environ["FUZZ_PASSWORD"]
        if self._old is not None:
            os.environ["FUZZ_PASSWORD"] = self._old
