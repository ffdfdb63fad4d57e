"""What tells one folder of weights from another, wherever it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

_HASHED = {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt"}
_WHOLE_FILE_LIMIT = 1 << 30
_SAMPLE_BYTES = 1 << 20
_SAMPLES_PER_FILE = 32


def content_hash(path: Path) -> str:
    """Hash a folder of weights: small files whole, huge ones by evenly spread samples."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.suffix in _HASHED):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE_FILE_LIMIT:
                while block := stream.read(_SAMPLE_BYTES):
                    digest.update(block)
            else:
                for i in range(_SAMPLES_PER_FILE):
                    stream.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES_PER_FILE - 1))
                    digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:40]
