"""What weights take, told and refused before any is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.safetensors_header import BrokenFile, StoredTensor, read_header
from pipeline.models.weight_size import check_room, describe_weights, weight_size

LAYER = StoredTensor("model.text_model.layers.0.mlp.up_proj.weight", "BF16", (1000, 1000))
HEAD = StoredTensor("lm_head.weight", "BF16", (500, 1000))
NORM = StoredTensor("model.text_model.layers.0.input_layernorm.weight", "BF16", (1000,))


@pytest.mark.parametrize(
    ("dtype", "quantization", "size"),
    [
        ("float32", "none", 4 * 1_501_000),
        ("bfloat16", "none", 2 * 1_501_000),
        ("float16", "int8", 2 * 501_000 + 1_000_000),
        ("bfloat16", "nf4", 2 * 501_000 + 500_000 + 15_625 + 244),
    ],
)
def test_a_tensor_counts_as_it_is_held(dtype: str, quantization: str, size: int) -> None:
    found = weight_size([LAYER, HEAD, NORM], dtype, quantization)
    assert (found.parameters, found.bytes) == (1_501_000, size)


def described(name: str, **settings: object) -> str | None:
    asked = ModelSettings(name=name, **settings)
    return describe_weights(resolve(asked), asked, on_gpu=False)


def test_what_a_model_weighs_is_one_line() -> None:
    assert described("nano") == "model nano: 4.74 M parameters, 19 MB of weights in float32"
    small = described("nano", dtype="bfloat16", quantization="nf4") or ""
    assert re.fullmatch(
        r"model nano: 4\.74 M parameters, \d\.\d+ MB of .* in nf4 and bfloat16", small
    )
    assert described("fake?edge=224", family="fake") is None


@pytest.mark.parametrize(
    ("free", "quantization", "mend"),
    [
        (
            5_000_000,
            "none",
            "model.dtype: bfloat16 takes 3 MB, model.quantization: int8 takes 3 MB, "
            "model.quantization: nf4 takes 2.52 MB",
        ),
        (2_700_000, "none", "model.quantization: nf4 takes 2.52 MB"),
        (100_000, "none", "take one with more memory, or a smaller model"),
        (2_000_000, "nf4", "take one with more memory, or a smaller model"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_what_would(
    free: int, quantization: str, mend: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_room("big", [LAYER, HEAD, NORM], "float32", quantization, free, "the GPU")
    assert str(caught.value).startswith("model.name: the weights of 'big' take ")
    assert str(caught.value).endswith(f" free; {mend}")
    check_room("big", [LAYER, HEAD, NORM], "float32", quantization, 6_004_000, "the GPU")


def test_a_model_looks_for_room_before_it_reads_its_weights(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.weights.free_bytes", lambda _: 600_000)
    monkeypatch.setattr("pipeline.models.weights._load", lambda *_: pytest.fail("it was read"))
    asked = ModelSettings(name=str(checkpoint_folder))
    with pytest.raises(CheckpointError, match=r"take 648 kB in float32, and the CPU has 600 kB"):
        family_of(resolve(asked)).load(resolve(asked), asked, Placement())


def shard(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4,
        b"garbage that is no header at all",
        (1 << 62).to_bytes(8, "little") + b"{}",
        shard(b"["),
        shard(b"\xff\xfe"),
        shard([1]),
        shard({"a": 1}),
        shard({"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 8]}}, bytes(8)),
        shard(b"[" * 100_000),
        shard(ONE, bytes(7)),
        shard(ONE, bytes(9)),
    ],
)
def test_a_broken_file_is_told_from_its_header(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model-00001-of-00002.safetensors"
    file.write_bytes(content)
    with pytest.raises(BrokenFile, match=r"^model-00001-of-00002\.safetensors ") as caught:
        read_header(file)
    assert len(str(caught.value)) < 200
    file.write_bytes(shard(ONE | {"__metadata__": {"format": "pt"}}, bytes(8)))
    assert read_header(file) == [StoredTensor("a", "F32", (2,))]


@pytest.mark.parametrize(
    "index",
    ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b.safetensors"}}',
     '{"weight_map": {"a": 3}}', '{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": "absent"}}'],
)  # fmt: skip
def test_an_index_that_cannot_be_used_is_one_line(
    checkpoint_folder: Path, tmp_path: Path, index: str
) -> None:
    (tmp_path / "config.json").write_bytes((checkpoint_folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="does not load: ") as caught:
        described(str(tmp_path))
    assert "\n" not in str(caught.value)
