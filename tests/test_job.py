from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from pipeline import packaged as packaged_module
from pipeline.credentials import holds_credentials
from pipeline.errors import JobError
from pipeline.finetune.job import load_finetune_job
from pipeline.job import Job
from pipeline.jobfile import load_job
from pipeline.packaged import packaged_names
from pipeline.selection import PageSelection, page_ranges, parse_pages

MINIMAL = {"input": {"paths": ["docs"]}, "schema": "receipt.v1", "output": {"uri": "out"}}

# The model


def test_everything_but_input_schema_and_output_has_a_default() -> None:
    job = Job.model_validate(MINIMAL)
    assert job.schema_ == "receipt.v1"
    assert (job.task, job.unit, job.prompt) == ("extract", "page", None)
    assert (job.model.name, job.model.image_splitting) == ("nano", "auto")
    assert (job.generation.max_new_tokens, job.generation.constrained) == (1024, True)
    assert (job.render.cpu_s, job.render.wall_s, job.render.memory_mb) == (10, 60, 512)
    assert (job.resources.actors.min, job.resources.actors.max) == (1, 1)
    assert job.input.max_pages == 5000


def test_a_job_is_frozen() -> None:
    job = Job.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        job.name = "other"


def test_a_job_survives_its_own_dump() -> None:
    job = Job.model_validate(MINIMAL | {"model": {"image_splitting": False}})
    text = yaml.safe_dump(job.model_dump(mode="json", by_alias=True))
    assert Job.model_validate(yaml.safe_load(text)) == job


def test_every_key_is_described_and_the_json_schema_is_valid() -> None:
    schema = Job.model_json_schema(by_alias=True)
    Draft202012Validator.check_schema(schema)
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        for name, key in section["properties"].items():
            # pydantic leaves out what the section's own description says already
            assert key.get("description") or "$ref" in key, name
    assert schema["required"] == ["input", "output"]
    assert Draft202012Validator(schema).is_valid(MINIMAL)


def test_ocr_has_its_own_schema() -> None:
    ocr = {key: value for key, value in MINIMAL.items() if key != "schema"} | {"task": "ocr"}
    assert Job.model_validate(ocr).schema_ == "text.v1"
    assert Job.model_validate(ocr | {"schema": "text.v1"}).schema_ == "text.v1"
    with pytest.raises(ValidationError, match="task ocr has its own schema"):
        Job.model_validate(ocr | {"schema": "receipt.v1"})


# Page selections


@pytest.mark.parametrize(
    ("text", "ranges", "of_8", "normal"),
    [
        ("1-3,7", ((1, 3), (7, 7)), (1, 2, 3, 7), "1-3,7"),
        ("7,1-3,2", ((1, 3), (7, 7)), (1, 2, 3, 7), "1-3,7"),
        ("5-", ((5, None),), (5, 6, 7, 8), "5-"),
        ("-3", ((1, 3),), (1, 2, 3), "1-3"),
        ("3", ((3, 3),), (3,), "3"),
        ("1,2,3", ((1, 3),), (1, 2, 3), "1-3"),
        ("4-,1-2,6", ((1, 2), (4, None)), (1, 2, 4, 5, 6, 7, 8), "1-2,4-"),
        (" 2 - 3 , 1 ", ((1, 3),), (1, 2, 3), "1-3"),
        ("9-12", ((9, 12),), (), "9-12"),
        ("7-999999999", ((7, 999999999),), (7, 8), "7-999999999"),
    ],
)
def test_pages(text: str, ranges: Any, of_8: tuple[int, ...], normal: str) -> None:
    selection = parse_pages(text)
    assert selection == PageSelection(ranges)
    assert selection.select(8) == of_8
    assert str(selection) == normal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "is not a page or range") for text in ("", "-", "a", "1,,2", "1--2", "1 2", "٣")),
        *((text, "pages count from 1") for text in ("0", "0-3", "-0")),
        ("3-1", "'3-1' runs backwards; write 1-3"),
    ],
)
def test_bad_pages(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_pages(text)


pages = st.integers(1, 30)
spans = st.one_of(
    pages.map(lambda n: (str(n), {n})),
    st.tuples(pages, pages).map(
        lambda p: (f"{min(p)}-{max(p)}", set(range(min(p), max(p) + 1))),
    ),
    pages.map(lambda n: (f"{n}-", set(range(n, 41)))),
)


@given(st.lists(spans, min_size=1), st.integers(0, 40))
def test_pages_select_the_union_of_their_ranges(parts: list[Any], n_pages: int) -> None:
    selection = parse_pages(",".join(text for text, _ in parts))
    union = set().union(*(numbers for _, numbers in parts))
    assert selection.select(n_pages) == tuple(sorted(n for n in union if n <= n_pages))
    assert parse_pages(str(selection)) == selection
    numbers = selection.select(50)
    assert not numbers or parse_pages(page_ranges(numbers)).select(50) == numbers


# Job files

TEXT = """
input:
  paths: docs/*.pdf
schema: receipt.v1
output:
  uri: out
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with jobs/x.yaml below it."""
    (tmp_path / "jobs").mkdir()
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TEXT)
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "jobs" / "x.yaml").write_text(text)


def test_paths_in_the_file_are_relative_to_it_and_the_output_to_the_current_folder(
    here: Path,
) -> None:
    write(
        here,
        """
        input: {paths: [../docs/*.pdf, /data, "s3://bucket/in", ~/scans], manifest: list.csv}
        schema: schemas/mine.json
        model: {name: ./weights, adapter: org/adapter}
        output: {uri: out}
        """,
    )
    job = load_job("jobs/x.yaml")
    home = str(Path.home())
    assert job.input.paths == (f"{here}/docs/*.pdf", "/data", "s3://bucket/in", f"{home}/scans")
    assert job.input.manifest == f"{here}/jobs/list.csv"
    assert job.schema_ == f"{here}/jobs/schemas/mine.json"
    assert (job.model.name, job.model.adapter) == (f"{here}/jobs/weights", "org/adapter")
    assert job.output.uri == f"{here}/out"


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("./tables/r", "/tables/r"),
        ("tables/r", "/tables/r"),
        ("../r", "/../r"),
        ("/t/r", None),
        ("s3://b/r", None),
        ("file:///t/r", None),
    ],
)
def test_a_delta_table_is_relative_to_the_current_folder_as_the_output_is(
    table: str, found: str | None, here: Path
) -> None:
    wanted = os.path.normpath(f"{here}{found}") if found else table
    delta = f"{TEXT.rstrip()}\n  format: delta\n"
    write(here, f"{delta}  table: {table}\n")
    assert load_job("jobs/x.yaml").output.table == wanted
    write(here, delta)
    assert load_job("jobs/x.yaml", [f"output.table={table}"]).output.table == wanted


def test_a_table_of_a_catalog_is_a_name(here: Path) -> None:
    write(here, f"{TEXT.rstrip()}\n  format: iceberg\n  table: lake.r\n")
    assert load_job("jobs/x.yaml").output.table == "lake.r"


def test_names_are_left_alone(here: Path) -> None:
    write(
        here,
        TEXT.replace("receipt.v1", "shop.models:Receipt").replace("uri: out", "uri: s3://b/out"),
    )
    job = load_job("jobs/x.yaml", overrides=["model.name=HuggingFaceM4/idefics2-8b"])
    assert job.schema_ == "shop.models:Receipt"
    assert job.model.name == "HuggingFaceM4/idefics2-8b"
    assert job.output.uri == "s3://b/out"


@pytest.mark.usefixtures("here")
def test_the_file_names_the_job() -> None:
    assert load_job("jobs/x.yaml").name == "x"
    assert load_job("jobs/x.yaml", ["name=y"]).name == "y"


def test_input_and_output_take_the_place_of_the_files(here: Path) -> None:
    write(here, TEXT.replace("paths: docs/*.pdf", "manifest: list.csv"))
    job = load_job("jobs/x.yaml", inputs=["a.pdf", "b"], output="s3://bucket/out")
    assert job.input.paths == (f"{here}/a.pdf", f"{here}/b")
    assert job.input.manifest is None
    assert job.output.uri == "s3://bucket/out"


def test_overrides(here: Path) -> None:
    job = load_job(
        "jobs/x.yaml",
        [
            "model.dtype=float32",
            "resources.actors.max=4",
            "model.image_splitting=true",
            "input.paths=[a, b]",
            "input.pages=3",
            "prompt=Read: it all",
            "schema=mine.json",
            "model.dtype=bfloat16",
        ],
    )
    assert job.model.dtype == "bfloat16"
    assert job.resources.actors.max == 4
    assert job.model.image_splitting is True
    assert job.input.paths == (f"{here}/a", f"{here}/b")
    assert job.input.pages == "3"
    assert job.schema_ == f"{here}/mine.json"
    assert job.prompt == "Read: it all"


def test_yaml_quirks(here: Path) -> None:
    write(here, TEXT + "model: {revision: 2024-01-31}\nresources:\nprompt: null\n")
    job = load_job("jobs/x.yaml", ["input.pages=1,3"])
    assert job.model.revision == "2024-01-31"
    assert job.input.pages == "1,3"
    assert job.resources.batch == 64


def test_an_anchor_is_not_changed_through_its_alias(here: Path) -> None:
    write(here, TEXT + "model: &m {name: a}\n")
    assert load_job("jobs/x.yaml", ["model.name=b"]).model.name == "b"


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("modle: {}", "unknown key; did you mean model?"),
        ("schema_: a", "schema_: unknown key; did you mean schema?"),
        ("zzz: 1", "zzz: unknown key; there are name, input, schema, task"),
        ("model: {nmae: a}", "model.nmae: unknown key; did you mean name?"),
        ("resources: {actors: {maxx: 1}}", "resources.actors.maxx: unknown key; did you mean max?"),
        (
            "model: {dtype: flaot32}",
            "model.dtype: 'flaot32' is not one of auto, float32",
        ),
        (
            "model: {image_splitting: 3}",
            "image_splitting: 3 is not one of auto, adaptive, true, false",
        ),
        ("model: {split_below: 0.9}", "split_below: only image_splitting: adaptive looks at it"),
        ("pages_per_sample: 4", "pages_per_sample: with unit page it is one; set unit: document"),
        ("model: nano", "model: 'nano' is not a section; write keys below it, such as name"),
        ("name: 5", "name: 5 is not text; quote it"),
        ("resources: {batch: 0}", "resources.batch: 0: input should be greater than or equal to 1"),
        ("resources: {cpus: .inf}", "resources.cpus: inf: input should be a finite number"),
        ("resources: {actors: {min: 3}}", "resources.actors: max (1) is less than min (3)"),
        ("task: ocr", "task ocr has its own schema (text.v1); leave schema out"),
        ("schema: b", "line 7: not YAML: key schema appears twice; remove one"),
        ("a: [", "line 8: not YAML"),
        ("model: !!python/object:os.system {}", "not YAML: could not determine a constructor"),
        ("1: 2", "keys should be strings"),
        (
            'stores: {"s3://": {endpoint: "127.0.0.1:9000"}}',
            "endpoint: not an address; write it as http://host:port",
        ),
        ("model: {dtype: a, attention: b}\nrender: {cpu_s: 0}", "flash"),
    ],
)
def test_a_mistake_is_one_line_naming_file_key_and_mend(
    here: Path, addition: str, message: str
) -> None:
    write(here, TEXT + addition + "\n")
    with pytest.raises(JobError) as caught:
        load_job("jobs/x.yaml")
    line = str(caught.value)
    assert line.startswith("jobs/x.yaml: ")
    assert "\n" not in line
    if message != "flash":
        assert message in line.lower() if message.islower() else message in line
        assert "more)" not in line
    else:
        assert line.endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "input: missing; add it (and 1 more)"),
        ("- a", "not a job file; write keys and values"),
        ("input: {paths: a}\noutput: {uri: o}", "schema is missing; task extract needs one"),
        ("input: {}\nschema: s\noutput: {uri: o}", "input: nothing to read; name input.paths"),
        ("input: {paths: [a, 1]}\nschema: s\noutput: {uri: o}", "input.paths[1]: 1 is not text"),
        (
            "input: {paths: a, pages: 3-1}\nschema: s\noutput: {uri: o}",
            "input.pages: '3-1' runs backwards; write 1-3",
        ),
    ],
)
def test_a_job_file_that_lacks_something(here: Path, text: str, message: str) -> None:
    write(here, text)
    with pytest.raises(JobError) as caught:
        load_job("jobs/x.yaml")
    assert str(caught.value).startswith(f"jobs/x.yaml: {message}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.nmae=x", "--set: model.nmae: unknown key; did you mean name?"),
        ("modle.name=x", "--set: modle: unknown key; did you mean model?"),
        ("model.dtype=x", "--set: model.dtype: 'x' is not one of auto"),
        ("model={name: x}", "--set: model: '{name: x}' is not a section"),
        ("model=x", "--set: model: 'x' is not a section"),
        ("schema.id=x", "--set: schema is a value, not a section; set schema itself"),
        ("model.name", "--set model.name: write key=value"),
        ("=x", "--set =x: write key=value"),
        ("model.name=[", "--set model.name: line 1: not YAML"),
        ("stores.s3://.endpoint=http://x", "--set: stores cannot be set from the command line"),
        ("stores.s3.endpoint=x", "--set: stores cannot be set from the command line"),
        (
            "input.paths=[s3:/scans/a]",
            "input.paths: a URI with one slash; did you mean s3://scans/a",
        ),
    ],
)
def test_a_mistake_in_set(override: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        load_job("jobs/x.yaml", [override])
    assert str(caught.value).startswith(message)


def test_a_password_comes_from_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDF_PASSWORD", raising=False)
    overrides = ["input.password_env=PDF_PASSWORD"]
    with pytest.raises(JobError, match=r"no environment variable PDF_PASSWORD; export it"):
        load_job("jobs/x.yaml", overrides)
    monkeypatch.setenv("PDF_PASSWORD", "open sesame")
    assert "sesame" not in load_job("jobs/x.yaml", overrides).model_dump_json()
    assert here.exists()


def test_a_packaged_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "wheel" / "pipeline" / "jobs").mkdir(parents=True)
    (here / "wheel" / "pipeline" / "jobs" / "demo.yaml").write_text(TEXT)
    monkeypatch.setattr(packaged_module.pipeline, "__file__", f"{here}/wheel/pipeline/__init__.py")
    job = load_job("demo")
    assert (job.name, job.output.uri) == ("demo", f"{here}/out")
    assert job.input.paths == (f"{here}/wheel/pipeline/jobs/docs/*.pdf",)
    with pytest.raises(JobError, match=r"demmo: neither .* did you mean demo\?"):
        load_job("demmo")
    with pytest.raises(JobError, match="packaged jobs: demo"):
        load_job("jobs/nothing.yaml")


def test_every_job_that_ships_loads() -> None:
    for name in packaged_names("jobs"):
        if name.startswith("finetune_"):
            assert load_finetune_job(name).name == name
        elif not name.startswith("train_"):
            assert load_job(name, inputs=["x.pdf"]).name


def test_a_training_job_is_not_run() -> None:
    with pytest.raises(JobError, match="training job; run it with pagelake finetune"):
        load_job("train_nano")


def test_a_file_that_is_not_utf8(here: Path) -> None:
    (here / "jobs" / "x.yaml").write_bytes(b"name: \xff")
    with pytest.raises(JobError, match="save it as UTF-8"):
        load_job("jobs/x.yaml")


# Credentials

PASTED = [
    "s3://AKIAKEY:SECRET@bucket/in",
    "https://user:SECRET@host/a.pdf",
    "s3://SECRET@bucket",
    "S3://AKIAKEY:SECRET/with/slashes@bucket/in",
    "abfs://:SECRET@account.blob.core.windows.net/in",
    " s3://AKIAKEY:SECRET@bucket/in",
]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        *((uri, True) for uri in PASTED),
        ("abfs://container:SECRET@account", True),
        ("s3://bucket/in?access_key=AKIA&region=eu", True),
        ("s3://bucket/in?region=eu&secret_key=SECRET", True),
        ("https://host/a.pdf?X-Amz-Date=1&X-Amz-Signature=SECRET", True),
        ("https://account.blob.core.windows.net/a.pdf?sv=1&sig=SECRET", True),
        ("https://host/a.pdf?key=SECRET", True),
        ("https://host/a.pdf?v=1&auth=SECRET", True),
        ("https://host/a.pdf?code=SECRET", True),
        ("https://host/a.pdf?Pwd=SECRET", True),
        ("https://host/a.pdf?user_pwd=SECRET", True),
        ("https://host/a.pdf?jwt=SECRET", True),
        ("https://host/a.pdf?apikey=SECRET", True),
        ("https://host/a.pdf?page_key=1&zip_code=2&author=x&keys=3", False),
        ("s3://bucket/in?endpoint_override=host:9000&scheme=http", False),
        ("https://host/a.pdf?page=1&design=2", False),
        ("abfs://container@account.dfs.core.windows.net/a.pdf", False),
        ("hdfs://user@namenode:8020/a.pdf", False),
        ("s3://bucket/user:name@host.pdf", False),
        ("s3://bucket?region=eu&note=a@b", False),
        ("http://host:9000/a.pdf", False),
        ("http://host:9000", False),
        ("http://[::1]:9000/a.pdf", False),
        ("file:///scans/me@home:1.pdf", False),
        ("/scans/me@home:1.pdf", False),
        ("me@home.pdf", False),
    ],
)
def test_credentials_are_told_from_ports_and_places(uri: str, expected: bool) -> None:
    assert holds_credentials(uri) is expected


@pytest.mark.parametrize("uri", PASTED[:5])
@pytest.mark.parametrize(
    ("key", "shown"),
    [("input.paths", "input.paths[0]"), ("input.manifest",) * 2, ("output.uri",) * 2],
)
def test_a_uri_with_credentials_is_refused_and_not_shown(
    here: Path, key: str, shown: str, uri: str
) -> None:
    with pytest.raises(JobError) as caught:
        load_job("jobs/x.yaml", [f"{key}={uri}"])
    assert str(caught.value) == (
        f"--set: {shown}: the URI holds a user, password or key; "
        "take it out and use the environment or a profile"
    )
    for inputs, output in (([uri], None), ([], uri)):
        with pytest.raises(JobError, match="the URI holds a user, password or key") as caught:
            load_job("jobs/x.yaml", inputs=inputs, output=output)
        assert "SECRET" not in str(caught.value)
    assert here.exists()


@pytest.mark.parametrize(
    "override",
    [
        "output={}",
        "output.url={}",
        "output.uri=[{}]",
        "output.uri:{}",
        "input.pages={}",
        "model.dtype={}",
        "resources.batch={}",
        "output.uri=[{}",
    ],
)
@pytest.mark.usefixtures("here")
def test_credentials_under_the_wrong_key_are_not_shown(override: str) -> None:
    with pytest.raises(JobError) as caught:
        load_job("jobs/x.yaml", [override.format(PASTED[0])])
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pydantics_own_message_does_not_show_credentials() -> None:
    with pytest.raises(ValidationError, match="use the environment or a profile") as caught:
        Job.model_validate(MINIMAL | {"output": {"uri": PASTED[0]}})
    assert "SECRET" not in str(caught.value)


# docs/JOBS.md


def test_the_reference_names_every_key() -> None:
    reference = (Path(__file__).parent.parent / "docs" / "JOBS.md").read_text("utf-8")

    def keys(section: type[BaseModel], prefix: str = "") -> list[str]:
        found = []
        for name, field in section.model_fields.items():
            path = f"{prefix}{field.alias or name}"
            nested = field.annotation
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                found += keys(nested, f"{path}.")
            else:
                found.append(path)
        return found

    missing = [key for key in keys(Job) if f"| `{key}` |" not in reference]
    assert missing == []


def test_the_examples_of_the_reference_are_jobs(here: Path) -> None:
    reference = (Path(__file__).parent.parent / "docs" / "JOBS.md").read_text("utf-8")
    examples = [part.split("```")[0] for part in reference.split("```yaml\n")[1:]]
    assert examples
    for example in examples:
        write(here, example)
        assert json.loads(load_job("jobs/x.yaml").model_dump_json())


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ({"table": "lake.a"}, "format parquet has none"),
        ({"format": "delta", "catalog": "prod"}, "catalog: format delta has none"),
        ({"format": "iceberg", "table": "receipts"}, "write lake.receipts"),
        ({"format": "iceberg", "table": "lake.a b"}, "no table's name: letters, digits, _ and -"),
        (
            {"format": "delta", "table": "lake.receipts"},
            "is no folder or URI; write",
        ),
        ({"format": "iceberg", "uri": "s3://bucket/out"}, "catalog is missing"),
    ],
)
def test_a_table_goes_with_its_format(output: dict[str, str], complaint: str) -> None:
    settings = {"input": {"paths": ["a"]}, "task": "ocr", "output": {"uri": "out", **output}}
    with pytest.raises(ValidationError, match=complaint):
        Job.model_validate(settings)
