"""A small hub on loopback: repositories as the Hugging Face hub serves them, and its failures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from http_thread import answering

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories by id, then by commit; `refs` are branches and tags.

    `broken` maps (repository, file) to how its download fails: "cut" breaks the line halfway, a
    number is the status of the answer. A repository in `private` wants `token`; one in `gated` is
    refused to all. `served` counts the downloads of files that were begun, by method and name.
    """

    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    broken: dict[tuple[str, str], str | int] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_secret"
    served: Counter[tuple[str, str]] = field(default_factory=Counter)
    endpoint: str = ""

    def add(self, name: str, files: Files, *refs: str) -> str:
        """Commit files; return the commit, which `refs` then point to."""
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories.setdefault(name, {})[digest] = dict(files)
        self.refs |= {(name, ref): digest for ref in ("main", *refs)}
        return digest


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends; then nothing listens there any more."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with answering(handler) as hub.endpoint:
        yield hub


def point_at(endpoint: str, patch: pytest.MonkeyPatch) -> None:
    """Make a hub the one that this process knows; elsewhere HF_ENDPOINT does, read at import."""
    constants = huggingface_hub.constants
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", endpoint)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(huggingface_hub.hf_api.api, "endpoint", endpoint)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        about = parts[:2] == ["api", "models"]
        if len(parts) < 4:
            return self._refuse(404, "")  # what clients ask about themselves
        owner, model, kind, revision, *file = parts[2:] if about else parts
        name = f"{owner}/{model}"
        commits = self.hub.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if name in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        if commits is None or (name in self.hub.private and not known):
            return self._refuse(401, "RepoNotFound")  # the hub does not tell which
        commit = self.hub.refs.get((name, revision), revision)
        if commit not in commits:
            return self._refuse(404, "RevisionNotFound")
        files = commits[commit]
        if about and kind == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self._json({"id": name, "sha": commit, "siblings": siblings})
        if about:
            return self._json([_entry(path, content) for path, content in files.items()])
        return self._file(name, commit, "/".join(file), files)

    def _file(self, name: str, commit: str, path: str, files: Files) -> None:
        if path not in files:
            return self._refuse(404, "EntryNotFound")
        self.hub.served[(self.command, path)] += 1
        content, how = files[path], self.hub.broken.get((name, path))
        if isinstance(how, int):
            return self._refuse(how, "")
        begin, end = 0, len(content)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(end, int(last) + 1 if last else end)
            if begin >= len(content):
                return self._refuse(416, "")
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - begin))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            half = (begin + end) // 2
            self.wfile.write(content[begin : half if how == "cut" else end])
        return None

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if path.endswith((".safetensors", ".bin")):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry
