"""How many requests does a page cost an object store?

    python infra/bench/s3_requests.py

A job whose documents and output lie in a real S3 endpoint, moto's server in a process of its own,
runs in one process; the server's log says what was asked of it. Documents of one page, and PDFs of
three, are counted apart. Under Ray each drawing task also reads its shard's row, one GET, and each
worker the footers of those files once.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "proofs"))
sys.path.append(str(Path(__file__).parents[2] / "tests" / "stores"))
from piles import PDF_PAGES, make_pile
from rich.console import Console
from s3_server import KEYS, S3Server, s3_server

from pipeline.job import Job
from pipeline.runners.run import Options, run

_ASKED = re.compile(r'"(?:\x1b\[\d+m)*(?P<method>[A-Z]+) (?P<path>\S+) HTTP')  # some in colour
_DOCUMENTS = 64


def measure(shares: dict[str, float], folder: Path) -> Counter[str]:
    """Run over so many documents in a store, and return its requests by kind."""
    make_pile(folder / "pile", _DOCUMENTS, 0, shares)
    log = folder / "log"
    with s3_server(log=log) as server:
        server.make_bucket("bucket")
        for path in (folder / "pile").iterdir():
            with server.filesystem.open_output_stream(f"bucket/in/{path.name}") as stream:
                stream.write(path.read_bytes())
        before = len(log.read_text().splitlines())
        run(_job(server), Options(runner="local"), Console(file=io.StringIO()))
    asked = map(_ASKED.search, log.read_text().splitlines()[before:])
    return Counter(_kind(one["method"], one["path"]) for one in asked if one)


def _job(server: S3Server) -> Job:
    return Job.model_validate(
        {
            "input": {"paths": ["s3://bucket/in/"]},
            "task": "ocr",
            "stores": server.stores,
            "model": {"family": "fake", "name": "fake?edge=56"},
            "output": {"uri": "s3://bucket/out"},
        }
    )


def _kind(method: str, path: str) -> str:
    """Name a request by what is done, and to what."""
    name, _, query = path.partition("?")
    if "list-type" in query or "delimiter" in query:
        return "LIST"
    if "delete" in query.split("&")[0]:
        return "DELETE of many"
    parts = name.strip("/").split("/")
    if len(parts) < 3:
        return f"{method} bucket or folder"
    if parts[1] == "in":
        return f"{method} document"
    folder = parts[2] if parts[2] != "_pagelake" else "/".join(parts[2:4])
    return f"{method} {folder}"


def main() -> None:
    os.environ.update(KEYS)
    for name, shares, pages in (
        ("images of one page", {"image": 1.0}, 1),
        (f"PDFs of {PDF_PAGES} pages", {"pdf": 1.0}, PDF_PAGES),
    ):
        with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
            found = measure(shares, Path(folder))
        n_pages = _DOCUMENTS * pages
        print(f"{_DOCUMENTS} {name}: {found.total()} requests")
        for kind, count in found.most_common():
            print(
                f"  {kind:34}{count:6}{count / _DOCUMENTS:9.3f} a document"
                f"{count / n_pages:9.3f} a page"
            )


if __name__ == "__main__":
    main()
