"""Checkpoints and adapters by hub id, against a hub on loopback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Files, Hub, point_at, serving
from rich.console import Console

from pipeline.errors import CheckpointError
from pipeline.job import Job
from pipeline.model_settings import Model as ModelSettings
from pipeline.models import adapters
from pipeline.models.adapters import adapter_folder, pin_adapter
from pipeline.models.checkpoint_files import settings_folder, stored_tensors, weights_folder
from pipeline.models.families import resolve
from pipeline.models.weight_size import describe_weights
from pipeline.runners.recipe import prepare
from pipeline.runners.run import Options, run

NAME = "Owner/small-idefics2"
NOT_NEEDED = {
    "README.md": b"# A model",
    ".gitattributes": b"",
    "pytorch_model-00001-of-00001.bin": b"a pickle",
    "training_args.bin": b"a pickle",
    "own.py": b"raise SystemExit",
    "consolidated.safetensors": b"the same weights in another layout",
    "original/model.safetensors": b"the same weights once more",
    "original/params.json": b"{}",
}


@pytest.fixture(scope="session")
def files(published_folder: Path) -> Files:
    return contents(published_folder)


def contents(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def settings(**changes: Any) -> ModelSettings:
    return ModelSettings(name=NAME, **changes)


def fetched(hub: Hub) -> dict[str, int]:
    return {path: count for (method, path), count in hub.served.items() if method == "GET"}


def shards(files: Files) -> list[str]:
    return sorted(name for name in files if name.endswith(".safetensors"))


def complaint(work: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    assert "://" not in message
    assert "hf_secret" not in message
    return message


def test_a_branch_a_tag_and_a_commit_are_pinned(hub: Hub, cache: Path, files: Files) -> None:
    first = hub.add(NAME, files, "v1")
    second = hub.add(NAME, files | {"config.json": files["config.json"] + b"\n"})
    assert resolve(settings()).revision == second
    assert resolve(settings(revision="main")).revision == second
    assert resolve(settings(revision="v1")).revision == first
    assert resolve(settings(revision=first)).revision == first
    assert "has no revision 'v2'" in complaint(lambda: resolve(settings(revision="v2")))


def test_only_what_is_needed_is_fetched_and_once(hub: Hub, cache: Path, files: Files) -> None:
    hub.add(NAME, files | NOT_NEEDED)
    checkpoint = resolve(settings())
    said = describe_weights(checkpoint, settings(), on_gpu=False)
    assert said is not None
    assert said.endswith("kB of weights in float32, to be fetched from the hub first")
    hub.served.clear()
    folder = weights_folder(checkpoint)
    needed = {file.name for file in folder.iterdir()}
    assert needed == set(files)
    assert fetched(hub) == dict.fromkeys(shards(files), 1)
    assert weights_folder(checkpoint) == folder
    assert weights_folder(resolve(settings())) == folder
    assert fetched(hub) == dict.fromkeys(shards(files), 1)
    again = describe_weights(checkpoint, settings(), on_gpu=False)
    assert again == said.removesuffix(", to be fetched from the hub first")
    trusting = resolve(settings(trust_remote_code=True))
    assert {file.name for file in settings_folder(trusting).iterdir()} == needed | {"own.py"}


def test_without_the_hub_the_cache_serves(cache: Path, files: Files) -> None:
    with serving(Hub()) as hub, pytest.MonkeyPatch.context() as patch:
        point_at(hub.endpoint, patch)
        commit = hub.add(NAME, files, "v1")
        resolve(settings(revision="v1"))
        folder = weights_folder(resolve(settings()))
    with pytest.MonkeyPatch.context() as patch:
        point_at(hub.endpoint, patch)  # where nothing listens now
        patch.setattr("time.sleep", lambda _: None)
        for revision in (None, "main", "v1", commit):
            checkpoint = resolve(settings(revision=revision))
            assert checkpoint.revision == commit
            assert weights_folder(checkpoint) == folder
        assert "does not answer" in complaint(lambda: resolve(settings(revision="v2")))
        gone = folder / shards(files)[1]
        gone.unlink()
        message = complaint(lambda: weights_folder(checkpoint))
        assert "the hub does not answer, and the cache does not have all of it" in message
        assert "does not answer" in complaint(lambda: resolve(ModelSettings(name="owner/other")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda hub: hub.gated.add(NAME), "is gated; accept its terms on the hub, and log in"),
        (lambda hub: hub.private.add(NAME), "not on the hub or private; check the name, or log in"),
        (lambda hub: hub.repositories.clear(), "not on the hub or private"),
        (lambda hub: hub.broken.update({(NAME, "config.json"): 403}), "may not be read (the hub"),
        (
            lambda hub: hub.broken.update({(NAME, "config.json"): 500}),
            "(the hub answers 500); run again",
        ),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line(
    hub: Hub,
    cache: Path,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Hub], object],
    said: str,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between its own tries
    hub.add(NAME, files)
    change(hub)
    assert said in complaint(lambda: resolve(settings()))


def test_weights_in_pickles_only_are_refused(hub: Hub, cache: Path, files: Files) -> None:
    hub.add(NAME, {"config.json": files["config.json"], "pytorch_model.bin": b"a pickle"})
    checkpoint = resolve(settings())
    message = complaint(lambda: stored_tensors(checkpoint, weights_folder(checkpoint)))
    assert message == f"model.name: '{NAME}' has no model.safetensors on the hub"
    said = describe_weights(checkpoint, settings(), on_gpu=False)
    assert said == f"model {NAME}: its weights are not on this machine ({message})"


def test_a_download_that_breaks_is_gone_on_with(
    hub: Hub, cache: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.add(NAME, files)
    broken = shards(files)[1]
    hub.broken[NAME, broken] = "cut"
    checkpoint = resolve(settings())
    message = complaint(lambda: weights_folder(checkpoint))
    assert "could not be fetched whole" in message
    assert message.endswith("check the network, then run again to go on")
    hub.broken.clear()
    hub.served.clear()
    folder = weights_folder(checkpoint)
    assert {name: (folder / name).read_bytes() for name in shards(files)} == {
        name: files[name] for name in shards(files)
    }
    assert set(fetched(hub)) <= {broken}, "what was whole is not fetched again"


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: b"x" * len(data)])
def test_weights_damaged_in_the_cache_are_fetched_again(
    hub: Hub, cache: Path, files: Files, damage: Callable[[bytes], bytes]
) -> None:
    hub.add(NAME, files)
    checkpoint = resolve(settings())
    folder = weights_folder(checkpoint)
    broken = folder / shards(files)[0]
    broken.write_bytes(damage(broken.read_bytes()))
    hub.served.clear()
    job = {"input": {"paths": ["x"]}, "task": "ocr", "output": {"uri": "out"}}
    recipe = prepare(Job.model_validate({**job, "model": {"name": NAME}}), "run")
    assert recipe.weights == f"model {NAME}: its weights are to be fetched from the hub again"
    assert weights_folder(checkpoint) == folder
    assert fetched(hub) == {broken.name: 1}
    assert broken.read_bytes() == files[broken.name]


def test_weights_damaged_on_the_hub_are_told(hub: Hub, cache: Path, files: Files) -> None:
    name = shards(files)[0]
    hub.add(NAME, files | {name: files[name][:-7]})
    checkpoint = resolve(settings())
    folder = weights_folder(checkpoint)
    message = complaint(lambda: stored_tensors(checkpoint, folder))
    assert f"does not load: {name} has " in message


def test_two_processes_fetch_each_file_once(hub: Hub, cache: Path, files: Files) -> None:
    hub.add(NAME, files)
    program = (
        "from pipeline.job import Model\n"
        "from pipeline.models.checkpoint_files import weights_folder\n"
        "from pipeline.models.families import resolve\n"
        f"print(len(list(weights_folder(resolve(Model(name={NAME!r}))).iterdir())))"
    )
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert said == [[str(len(files)).encode()]] * 2
    assert fetched(hub) == dict.fromkeys(files, 1)


def test_a_run_by_hub_id_gives_what_a_run_by_folder_gives(
    hub: Hub,
    cache: Path,
    files: Files,
    demo: Path,
    tmp_path: Path,
    published_folder: Path,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    commit = hub.add(NAME, files, "v1")
    hub.private.add(NAME)
    monkeypatch.setenv("HF_TOKEN", hub.token)

    def pages(**model: str) -> tuple[dict[str, Any], str]:
        output = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        job = {
            "input": {"paths": [str(demo / "documents" / "image-01.png")]},
            "schema": "receipt.v1",
            "model": model,
            "generation": {"max_new_tokens": 40},
            "output": {"uri": str(output)},
        }
        said = io.StringIO()
        run(Job.model_validate(job), Options(runner="local"), Console(file=said))
        for file in output.rglob("*"):
            assert file.is_dir() or hub.token.encode() not in file.read_bytes()
        (row,) = rows(output, "pages")
        return row, said.getvalue() + "".join(capfd.readouterr())

    ours, said = pages(name=NAME, revision="v1")
    assert "of weights in float32, to be fetched from the hub first" in said
    assert hub.token not in said
    assert fetched(hub) == dict.fromkeys(files, 1) | dict.fromkeys(shards(files), 2)
    theirs, _ = pages(name=str(published_folder))
    assert (ours["raw_text"], ours["state"]) == (theirs["raw_text"], theirs["state"])
    assert len(ours["raw_text"]) > 20
    assert ours["model_revision"] == commit


def test_an_adapter_is_pinned_and_fetched(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: object())
    name = "owner/adapter"
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"1"}
    first = hub.add(name, adapter, "v1")
    second = hub.add(name, adapter | {"README.md": b"", "adapter_model.bin": b"a pickle"})
    assert pin_adapter(name) == f"{name}@{second}"
    assert pin_adapter(settings(adapter=f"{name}@v1").adapter or "") == f"{name}@{first}"
    assert pin_adapter(f"{name}@{first}") == f"{name}@{first}"
    assert {file.name for file in adapter_folder(f"{name}@{second}").iterdir()} == set(adapter)
    hub.add(name, {"adapter_config.json": b"{}", "adapter_model.bin": b"a pickle"})
    assert "has no adapter_model.safetensors" in complaint(lambda: adapter_folder(name))
    assert "model.adapter: 'owner/none' is no local folder" in complaint(
        lambda: pin_adapter("owner/none")
    )
