from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models import adapters, content_hash
from pipeline.models.base import Checkpoint, Placement
from pipeline.models.checkpoint_files import settings_folder
from pipeline.models.dtypes import effective_dtype
from pipeline.models.fake import FakeFamily
from pipeline.models.families import BUNDLED, adapter_revision, family_of, resolve
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.models.idefics2.family import Idefics2Family
from pipeline.prompting import conversation, parsed


@pytest.fixture
def folder(checkpoint_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "checkpoint"))


def found(folder: Path | str, **settings: object) -> Checkpoint:
    return resolve(ModelSettings(name=str(folder), **settings))


def prompt(checkpoint: Checkpoint, n_pages: int, schema_id: str) -> str:
    shown = conversation(parsed("Read this."), n_pages)
    return family_of(checkpoint).prompt(checkpoint, ModelSettings(), shown, schema_id)


def complaint(work: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def load(folder: Path, **settings: object) -> Any:
    asked = ModelSettings(name=str(folder), **settings)
    return family_of(resolve(asked)).load(resolve(asked), asked, Placement())


def edit_size(folder: Path, size: dict[str, int]) -> None:
    file = folder / "processor_config.json"
    images = json.loads(file.read_text())["image_processor"]
    edit(file, image_processor=images | {"size": size})


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_bundled_model_is_found_by_its_bare_name() -> None:
    nano = found("nano")
    assert nano.family == "idefics2"
    assert settings_folder(nano) == BUNDLED / "nano"
    assert "/" not in nano.location  # another machine has it elsewhere
    assert nano.canvas == (168, 224)
    assert nano.schemas == ("receipt.v1", "text.v1")
    assert nano.compact_json
    assert nano == found("nano")


def test_the_bundled_model_wins_over_a_folder_of_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    assert settings_folder(found("nano")) == BUNDLED / "nano"
    assert found("./nano").location == str(tmp_path / "nano")


def test_a_folder_is_found_by_absolute_and_relative_path_and_from_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in (str(folder), "checkpoint", "./checkpoint", "~/checkpoint"):
        checkpoint = found(name)
        assert checkpoint.name == name
        assert checkpoint.location == str(folder)
        assert (checkpoint.canvas, checkpoint.schemas) == (None, None)
        assert len(checkpoint.revision) == 40


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere", "typo", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    assert f"no checkpoint at '{name}'" in complaint(lambda: found(name))


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    assert "config.json" in complaint(lambda: found(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "", "\udcff".encode(errors="surrogateescape")])
def test_a_broken_config_is_named(folder: Path, text: str | bytes) -> None:
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "config.json" in complaint(lambda: found(folder))


@pytest.mark.parametrize(
    "traits",
    [
        "{",
        '{"canvas": 5}',
        '{"canvas": [168]}',
        '{"canvas": ["a", "b"]}',
        '{"canvas": [0, 224]}',
        '{"schemas": 3}',
        '{"schemas": "receipt.v1"}',
        '{"canvass": [168, 224]}',
    ],
)
def test_broken_traits_are_named(folder: Path, traits: str) -> None:
    (folder / "pagelake.json").write_text(traits)
    assert "pagelake.json" in complaint(lambda: found(folder))


def test_a_model_of_another_kind_is_named(folder: Path) -> None:
    edit(folder / "config.json", model_type="llava")
    message = complaint(lambda: found(folder))
    assert "'llava'" in message
    assert "idefics2" in message


def test_a_folder_has_no_revisions(folder: Path) -> None:
    assert "model.revision" in complaint(lambda: found(folder, revision="main"))
    assert "model.revision" in complaint(lambda: found("nano", revision="main"))


def test_the_family_can_be_named(folder: Path) -> None:
    edit(folder / "config.json", model_type="finetuned")
    assert found(folder, family="idefics2").family == "idefics2"
    assert isinstance(family_of(found(folder, family="idefics2")), Idefics2Family)
    fake = found("anything?edge=224", family="fake")
    assert isinstance(family_of(fake), FakeFamily)


@pytest.mark.parametrize("family", ["idefics", "idefics3", "smolvlm"])
def test_a_family_that_a_known_model_is_not_of_is_refused(family: str) -> None:
    assert complaint(lambda: found("nano", family=family)) == (
        f"model.family: 'nano' is of family idefics2, not {family}; leave model.family out"
    )


def test_idefics3_and_smolvlm_are_read_by_the_same_family(folder: Path) -> None:
    edit(folder / "config.json", model_type="smolvlm")
    assert found(folder, family="idefics3").family == "idefics3"


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("idefics", "image_size"),
        ("idefics2", "size.longest_edge"),
        ("idefics3", "max_image_size.longest_edge"),
    ],
)
def test_a_processor_without_what_its_family_reads_is_named(
    folder: Path, family: str, key: str
) -> None:
    edit(folder / "config.json", model_type="finetuned")
    edit_size(folder, {"height": 112, "width": 112})
    checkpoint, asked = found(folder, family=family), ModelSettings(name=str(folder))
    message = complaint(lambda: family_of(checkpoint).encoder(checkpoint, asked))
    assert f"has no usable {key}" in message


def test_the_revision_follows_the_contents_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = found(folder).revision
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert found(moved).revision == before
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = found(moved).revision
    assert changed != before
    edit(moved / "generation_config.json", max_length=7)
    assert found(moved).revision not in (before, changed)


def test_the_revision_follows_files_that_weights_and_vocabularies_may_be_in(folder: Path) -> None:
    seen = {found(folder).revision}
    for name in ("pytorch_model.bin", "tokenizer.model", "merges.txt", "chat_template.jinja"):
        (folder / name).write_bytes(b"one")
        seen.add(found(folder).revision)
        (folder / name).write_bytes(b"two")
        seen.add(found(folder).revision)
    assert len(seen) == 9


def test_a_huge_files_revision_is_of_samples_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_hash, "_WHOLE_FILE_LIMIT", 1000)
    monkeypatch.setattr(content_hash, "_SAMPLE_BYTES", 100)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    before = found(folder).revision
    for place in (0, len(data) - 1):
        data[place] ^= 1
        weights.write_bytes(data)
        assert found(folder).revision != before
        data[place] ^= 1
    weights.write_bytes(data)
    assert found(folder).revision == before
    weights.write_bytes(data + b"\0")
    assert found(folder).revision != before


def test_both_halves_are_built_as_the_checkpoint_and_the_job_say(checkpoint_folder: Path) -> None:
    checkpoint, family = found(checkpoint_folder), Idefics2Family()
    for asked, splitting in (("auto", True), (True, True), (False, False)):
        settings = ModelSettings(name=checkpoint.name, image_splitting=asked)
        assert family.encoder(checkpoint, settings) == Idefics2Encoder(112, 42, splitting)
    nano = family.encoder(found("nano"), ModelSettings(name="nano"))
    assert nano == Idefics2Encoder(224, 168, False, (168, 224))


def test_the_prompt_is_the_chat_template_around_images_and_instructions(
    checkpoint_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    checkpoint = found(checkpoint_folder)
    rendered = prompt(checkpoint, 2, "receipt.v1")
    assert caplog.messages == []
    assert rendered == "<s>User:Read this.<image><image><end_of_utterance>\nAssistant:"
    assert prompt(found("nano"), 1, "receipt.v1") == "<image><receipt>"
    assert prompt(found("nano"), 1, "text.v1") == "<image><ocr>"


def test_a_prompt_begins_once_whoever_begins_it(folder: Path) -> None:
    """This template begins the sequence; a tokenizer may do so too (Llama's), or not (SmolLM's)."""
    file = folder / "tokenizer.json"
    for adds in (False, True):
        if adds:
            stored = Tokenizer.from_file(str(file))
            stored.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
            stored.save(str(file))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(prompt(found(folder), 1, ""))["input_ids"]
        assert (ids[0], ids.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)


def test_a_checkpoint_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    message = complaint(lambda: prompt(found(folder), 1, ""))
    assert "no chat template" in message


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_broken_processor_is_one_line(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    settings = ModelSettings(name=str(folder))
    message = complaint(lambda: Idefics2Family().encoder(found(folder), settings))
    assert "the processor of" in message


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_missing_processor_file_is_one_line(folder: Path, name: str) -> None:
    (folder / name).unlink()
    settings = ModelSettings(name=str(folder))
    assert "processor" in complaint(lambda: Idefics2Family().encoder(found(folder), settings))


@pytest.mark.parametrize("keep", [0, 4, 5000, -1000])
def test_cut_weights_are_one_line(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "does not load" in complaint(lambda: load(folder))


def test_missing_weights_are_one_line(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "does not load" in complaint(lambda: load(folder))


def test_weights_of_another_shape_are_one_line(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 80
    (folder / "config.json").write_text(json.dumps(config))
    message = complaint(lambda: load(folder))
    assert "9 of its weights are of other shapes than its config.json says, such as" in message


def test_weights_that_are_not_all_there_are_refused(folder: Path) -> None:
    """The stock loader would make the rest up."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("lm_head.weight"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = complaint(lambda: load(folder))
    assert "lm_head.weight" in message


def test_weights_in_a_pickle_are_not_loaded(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "does not load" in complaint(lambda: load(folder))


def test_code_that_a_checkpoint_brings_runs_only_if_the_job_says_so(folder: Path) -> None:
    mark = folder / "it-ran"
    (folder / "own.py").write_text(f"import os\nos.mknod({str(mark)!r})\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    load(folder)
    assert not mark.exists()
    with suppress(CheckpointError):
        load(folder, trust_remote_code=True)
    assert mark.exists()


def test_a_missing_adapter_is_one_line(folder: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    message = complaint(lambda: load(folder, adapter=missing))
    assert message.startswith(f"model.adapter: there is no folder '{missing}'; give a folder")


def test_an_adapter_needs_peft(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    for adapter in (str(tmp_path), "owner/adapter"):
        assert complaint(lambda adapter=adapter: load(folder, adapter=adapter)) == (
            "model.adapter: needs the peft package; pip install pagelake[adapters]"
        )


def test_an_adapter_that_does_not_load_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: object())
    (tmp_path / "adapter_config.json").write_text("{")
    (tmp_path / "adapter_model.bin").write_text("")
    assert "has no adapter_model.safetensors" in complaint(
        lambda: load(folder, adapter=str(tmp_path))
    )
    (tmp_path / "adapter_model.safetensors").write_text("")
    message = complaint(lambda: load(folder, adapter=str(tmp_path)))
    assert message.startswith(f"model.adapter: '{tmp_path}' does not load: ")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers has deprecated
def test_an_adapter_is_loaded_whole_or_refused(checkpoint_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(load(checkpoint_folder).weights, lora)
    tuned.save_pretrained(tmp_path)
    expected = {name: p for name, p in tuned.base_model.model.named_parameters() if "lora_" in name}
    loaded = dict(load(checkpoint_folder, adapter=str(tmp_path)).weights.named_parameters())
    assert expected
    assert all(torch.equal(loaded[name], p) for name, p in expected.items())
    edit(tmp_path / "adapter_config.json", target_modules=["k_proj"])
    message = complaint(lambda: load(checkpoint_folder, adapter=str(tmp_path)))
    assert message.startswith(f"model.adapter: '{tmp_path}' does not load: its files lack")


def test_an_adapters_revision_follows_its_contents(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    seen = set()
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        for content in (b"one", b"two"):
            (adapter / name).write_bytes(content)
            seen.add(adapter_revision(str(adapter)))
    assert len(seen) == 6
    moved = shutil.copytree(adapter, tmp_path / "moved")
    assert adapter_revision(str(moved)) in seen
    assert adapter_revision("owner/adapter") == "owner/adapter"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_gpu_is_one_line(folder: Path, device: str) -> None:
    asked = ModelSettings(name=str(folder))
    message = complaint(
        lambda: family_of(found(folder)).load(found(folder), asked, Placement(device))
    )
    assert message == (
        "resources.gpus_per_actor: it asks for a GPU and torch finds none here; set it to 0"
    )


def test_the_dtype_of_the_weights_is_the_effective_one(checkpoint_folder: Path) -> None:
    for dtype in ("auto", "float32", "bfloat16"):
        model = load(checkpoint_folder, dtype=dtype)
        assert str(model.decoder.shape.dtype) == f"torch.{effective_dtype(dtype, on_gpu=False)}"


def test_a_fixed_canvas_is_not_split() -> None:
    settings = ModelSettings(name="nano", image_splitting=True)
    checkpoint = resolve(settings)
    with pytest.raises(CheckpointError, match=r"model\.image_splitting: 'nano' reads pages of one"):
        family_of(checkpoint).encoder(checkpoint, settings)
