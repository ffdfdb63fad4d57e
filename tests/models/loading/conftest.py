"""A small checkpoint, file for file as HuggingFaceM4/idefics2-8b is published, and a hub for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from hub_server import Hub, point_at, serving
from tokenizers import Tokenizer, normalizers, trainers
from tokenizers.models import BPE

ADDED = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
CORPUS = [
    '{"vendor": "Corner Shop", "date": "2024-01-31", "items": [{"name": "Tea", "qty": 2}]}',
    "User:Read the page and answer with one JSON object. Assistant: total currency EUR",
] * 5
TEMPLATE = (
    "{% for message in messages %}{{message['role'].capitalize()}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def llama_tokenizer() -> dict[str, Any]:
    """A tokenizer.json of the Llama kind: "▁" for spaces, bytes for what it has no piece for."""
    trained = Tokenizer(BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=150, show_progress=False))
    found = json.loads(trained.to_str())
    plain = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*plain, *found["model"]["vocab"]]
    special = [*plain[:3], *ADDED]
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        **found,
        "added_tokens": [
            {
                "id": [*pieces, *ADDED].index(token),
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in special
        ],
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [begin, *({"Sequence": {"id": one, "type_id": 0}} for one in "AB")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            **found["model"],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
        },
    }


@pytest.fixture(scope="session")
def published_folder(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of 2024: shards in bfloat16, a processor in three files, a tokenizer in four."""
    from transformers import Idefics2ForConditionalGeneration

    tokenizer = llama_tokenizer()
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    size = max(ids.values()) + 1

    def reshaped(model: Any, _: Any) -> None:
        model.config.text_config.vocab_size = size
        model.config.image_token_id = ids["<image>"]
        model.resize_token_embeddings(size, mean_resizing=False)
        model.to(torch.bfloat16)

    plain = make_checkpoint(splitting=False, edit=reshaped)
    folder = tmp_path_factory.mktemp("published")
    model = Idefics2ForConditionalGeneration.from_pretrained(plain, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="120KB")
    assert len(list(folder.glob("model-0000?-of-0000?.safetensors"))) > 2

    def write(name: str, value: Any) -> None:
        (folder / name).write_text(json.dumps(value, indent=2))

    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    write("config.json", config | {"transformers_version": "4.40.0.dev0"})
    write(
        "generation_config.json",
        {
            "_from_model_config": True,
            "bad_words_ids": [[ids["<fake_token_around_image>"]], [ids["<image>"]]],
            "bos_token_id": 1,
            "eos_token_id": [2, ids["<end_of_utterance>"]],
            "pad_token_id": 0,
            "transformers_version": "4.40.0.dev0",
        },
    )
    write(
        "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_image_splitting": False,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "Idefics2ImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "Idefics2Processor",
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
            "size": {"longest_edge": 112, "shortest_edge": 42},
        },
    )
    write("processor_config.json", {"image_seq_len": 8, "processor_class": "Idefics2Processor"})
    write("chat_template.json", {"chat_template": TEMPLATE})
    write("tokenizer.json", tokenizer)
    write("added_tokens.json", {token: ids[token] for token in ADDED})
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}
    write("special_tokens_map.json", named | {"additional_special_tokens": ADDED})
    write(
        "tokenizer_config.json",
        {
            **named,
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {
                str(token.pop("id")): token for token in tokenizer["added_tokens"]
            },
            "additional_special_tokens": ADDED,
            "clean_up_tokenization_spaces": False,
            "legacy": False,
            "model_max_length": int(1e30),
            "padding_side": "left",
            "processor_class": "Idefics2Processor",
            "sp_model_kwargs": {},
            "spaces_between_special_tokens": False,
            "tokenizer_class": "LlamaTokenizer",
            "use_default_system_prompt": True,
        },
    )
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the hub as the one that this process knows."""
    constants = huggingface_hub.constants
    point_at(hub.endpoint, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return tmp_path / "cache"
