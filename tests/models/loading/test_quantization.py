"""Weights in 4 and 8 bits, on their own and under an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models import quantization
from pipeline.models.base import ModelInput, Placement
from pipeline.models.checkpoint_files import stored_tensors
from pipeline.models.families import family_of, resolve
from pipeline.models.weight_size import weight_size

KINDS = ["nf4", "int8"]
TOKENS = 10
BATCH = {"none": 3, "nf4": 3, "int8": 1}
"""LLM.int8 keeps columns of large activations apart, and looks for them in the whole batch."""


def load(folder: Path, **settings: Any) -> Any:
    asked = ModelSettings(name=str(folder), **settings)
    return family_of(resolve(asked)).load(resolve(asked), asked, Placement())


@pytest.fixture(scope="module")
def models(checkpoint_folder: Path) -> dict[str, Any]:
    return {
        name: load(checkpoint_folder, quantization=name, dtype="float32")
        for name in ("none", *KINDS)
    }


@pytest.fixture(scope="module")
def inputs() -> list[ModelInput]:
    rng = np.random.default_rng(5)
    pages = [rng.integers(0, 256, (side, 70, 3), np.uint8) for side in (42, 98)]
    return [
        ModelInput(f"User:<image>{text}<end_of_utterance>\nAssistant:", ((page,),))
        for page, text in zip(pages, ("Read this.", "A date and the name."), strict=True)
    ]


def engine_answers(model: Any, inputs: list[ModelInput], batch: int) -> list[tuple[int, ...]]:
    with Engine(model, Limits(batch)) as engine:
        futures = [engine.submit(Request(one.prompt, one.tiles, TOKENS)) for one in inputs]
        return [future.result(timeout=60).token_ids for future in futures]


def kinds_of_layers(model: Any) -> dict[str, str]:
    return {
        name: type(module).__name__
        for name, module in model.weights.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


@pytest.mark.parametrize(("kind", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_the_text_layers_are_quantized_and_nothing_else(
    models: dict[str, Any], kind: str, layer: str
) -> None:
    for name, found in kinds_of_layers(models[kind]).items():
        assert found == (layer if ".text_model.layers." in name else "Linear"), name
    plain = dict(models["none"].weights.named_parameters())
    for name, kept in models[kind].weights.named_parameters():
        if ".text_model.layers." not in name:
            assert torch.equal(kept, plain[name]), name


def test_nf4_is_quantized_twice_and_computes_in_the_jobs_type(checkpoint_folder: Path) -> None:
    weights = load(checkpoint_folder, quantization="nf4", dtype="bfloat16").weights
    layer = weights.model.text_model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == weights.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_token_by_token_a_quantized_model_answers_as_generate_does(
    models: dict[str, Any], inputs: list[ModelInput], kind: str
) -> None:
    answers = [models[kind].generate([one], TOKENS)[0] for one in inputs]
    expected = [answer.token_ids for answer in answers]
    assert engine_answers(models[kind], inputs, BATCH[kind]) == expected
    assert len(set(expected)) == len(inputs)
    (plain,) = models["none"].generate(inputs[:1], TOKENS)
    assert plain.logprobs[0] != pytest.approx(answers[0].logprobs[0], abs=1e-3)


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_the_size_told_beforehand_is_that_of_the_loaded_weights(
    models: dict[str, Any], checkpoint_folder: Path, kind: str
) -> None:
    checkpoint = resolve(ModelSettings(name=str(checkpoint_folder)))
    told = weight_size(stored_tensors(checkpoint, checkpoint_folder), "float32", kind)
    weights = models[kind].weights
    loaded = sum(p.numel() * p.element_size() for p in weights.parameters())
    # bitsandbytes keeps scales and tables beside the parameters, a few hundred bytes a layer.
    assert told.bytes == pytest.approx(loaded, rel=0 if kind == "none" else 0.01)
    plain = models["none"].weights
    assert told.parameters == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_quantized_already_loads_as_it_is(
    models: dict[str, Any],
    inputs: list[ModelInput],
    checkpoint_folder: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    models[kind].weights.save_pretrained(tmp_path)
    for file in checkpoint_folder.iterdir():
        if not (tmp_path / file.name).exists():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    expected = models[kind].generate(inputs[:1], TOKENS)
    for asked in ("none", kind):
        stored = load(tmp_path, quantization=asked, dtype="float32")
        assert kinds_of_layers(stored) == kinds_of_layers(models[kind])
        assert stored.generate(inputs[:1], TOKENS)[0].token_ids == expected[0].token_ids
    (other,) = set(KINDS) - {kind}
    with pytest.raises(CheckpointError, match=f"quantized already, as {kind}; leave it out"):
        load(tmp_path, quantization=other)
    checkpoint = resolve(ModelSettings(name=str(tmp_path)))
    plain = weight_size(stored_tensors(checkpoint, tmp_path), "float32")
    parameters = sum(p.numel() for p in models["none"].weights.parameters())
    assert plain.parameters == pytest.approx(parameters, rel=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_packages_are_one_line(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint_folder, quantization=kind)
    assert str(caught.value) == (
        f"model.quantization: {kind} needs bitsandbytes and accelerate; "
        "pip install pagelake[quantization]"
    )


@pytest.fixture(scope="module")
def adapter(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on text layers, with a B that is not zero, as after training."""
    import peft

    torch.manual_seed(1)
    lora = peft.LoraConfig(
        r=4,
        lora_alpha=32,
        target_modules=r".*text_model.*\.(q_proj|v_proj|down_proj)",
        init_lora_weights=False,
    )
    folder = tmp_path_factory.mktemp("adapter")
    peft.get_peft_model(load(checkpoint_folder).weights, lora).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers has deprecated
@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_an_adapter_answers_as_pefts_own_model_does(
    models: dict[str, Any],
    inputs: list[ModelInput],
    checkpoint_folder: Path,
    adapter: Path,
    kind: str,
) -> None:
    import peft

    settings = {"quantization": kind, "dtype": "float32"}
    theirs = load(checkpoint_folder, **settings)
    theirs._whole.weights = peft.PeftModel.from_pretrained(theirs.weights, adapter).eval()
    ours = load(checkpoint_folder, **settings, adapter=str(adapter))
    before = [models[kind].generate([one], TOKENS)[0].token_ids for one in inputs]
    expected = [theirs.generate([one], TOKENS)[0].token_ids for one in inputs]
    assert all(one != other for one, other in zip(before, expected, strict=True))
    assert [ours.generate([one], TOKENS)[0].token_ids for one in inputs] == expected
    assert engine_answers(ours, inputs, BATCH[kind]) == expected


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_of_another_base_is_refused_in_one_line(
    checkpoint_folder: Path, adapter: Path
) -> None:
    from safetensors.torch import load_file, save_file

    def complaint(**changes: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            load(checkpoint_folder, adapter=str(adapter), **changes)
        message = str(caught.value)
        assert message.startswith(f"model.adapter: '{adapter}' does not load: ")
        assert "\n" not in message
        return message

    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    stored, text = load_file(weights), config.read_text()
    wider = {name: torch.cat([w, w], dim=1 - ("lora_B" in name)) for name, w in stored.items()}
    deeper = stored | {name.replace("layers.1", "layers.7"): w + 1 for name, w in stored.items()}
    try:
        save_file(wider, weights, metadata={"format": "pt"})
        assert "of other shapes than the model's" in complaint()
        save_file(deeper, weights, metadata={"format": "pt"})
        assert "have no place in the model, such as" in complaint()
        save_file(stored, weights, metadata={"format": "pt"})
        config.write_text(json.dumps(json.loads(text) | {"target_modules": ["c_attn"]}))
        assert "c_attn" in complaint()
    finally:
        save_file(stored, weights, metadata={"format": "pt"})
        config.write_text(text)
