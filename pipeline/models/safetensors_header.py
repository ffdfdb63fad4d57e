"""The header of a safetensors file: what it holds, without reading the weights.

The format: 8 bytes of length, little endian; so many bytes of JSON; then the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST = 100 << 20  # as the format's own reader has it


class BrokenFile(ValueError):
    """No safetensors file, or not the whole of one."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as it lies in a file; `dtype` is the format's name, such as "BF16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path) -> list[StoredTensor]:
    """Return the tensors that a file holds, having checked that it is as long as they are.

    Raises
    ------
    BrokenFile
        If it is none, or was cut.
    OSError
        If it cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > _LONGEST:
            raise BrokenFile(f"{file.name} is no safetensors file, or was cut")
        text = stream.read(length)
    try:
        header = json.loads(text)
        tensors = {name: found for name, found in header.items() if name != "__metadata__"}
        end = max((int(found["data_offsets"][1]) for found in tensors.values()), default=0)
        stored = [_stored(name, found) for name, found in tensors.items()]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise BrokenFile(f"{file.name} is no safetensors file, or was cut") from error
    if size != (whole := 8 + length + end):
        raise BrokenFile(f"{file.name} has {size} bytes where its header says {whole}")
    return stored


def _stored(name: str, found: Mapping[str, Any]) -> StoredTensor:
    return StoredTensor(name, str(found["dtype"]), tuple(int(side) for side in found["shape"]))
