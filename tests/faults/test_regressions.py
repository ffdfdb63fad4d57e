"""What fuzzing found, each by what it is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.credentials import holds_credentials
from pipeline.errors import JobError, SchemaError
from pipeline.jobfile import load_job
from pipeline.records import Answer, FailureKind, FinishReason, Generation, SampleId, State
from pipeline.schema import Validator, make_schema
from pipeline.stages.parse import parse_json

JOB = "schema: receipt.v1\ninput: {paths: [a]}\noutput: {uri: out}\n"


def complaint(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    path = folder / "job.yaml"
    path.write_text(JOB + text)
    with pytest.raises(JobError) as caught:
        load_job(str(path), overrides)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        *('!!int ""', '!!int "-"', "!!float ''", "!!bool maybe", "!!timestamp soon"),
        *("9:" * 2000 + "0.0", "0x" + "f" * 5000, "1" * 5000, '"\\U00110000"'),
    ],
    ids=lambda value: value[:20],
)
def test_a_yaml_value_that_is_not_of_its_type_is_a_mistake(tmp_path: Path, value: str) -> None:
    assert complaint(tmp_path, f"prompt: {value}\n")
    assert complaint(tmp_path, "", (f"prompt={value}",))


def test_an_alias_stands_for_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB + "name: &a same\nprompt: *a\n")
    assert load_job(str(path)).prompt == "same"


def test_yaml_that_unfolds_without_bounds_is_refused_at_once(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x, x]\n"
    for level in range(1, 30):
        laughs += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n"
    started = time.process_time()
    assert "alias" in complaint(tmp_path, laughs)
    assert "alias" in complaint(tmp_path, "prompt: &a [*a]\n")
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "key", ["limits.item_s", "render.cpu_s", "render.wall_s", "render.memory_mb"]
)
def test_a_limit_without_end_is_refused(tmp_path: Path, key: str) -> None:
    assert "less than or equal" in complaint(tmp_path, "", (f"{key}={10**300}",))


def test_a_key_of_thousands_of_sections_is_not_one(tmp_path: Path) -> None:
    assert "write key=value" in complaint(tmp_path, "", ("a" + ".a" * 2000 + "=1",))


def test_a_mistake_stays_one_short_line_whatever_it_quotes(tmp_path: Path) -> None:
    assert "did you mean" not in complaint(tmp_path, '"a\\nb\\e[31m": x\n')
    assert len(complaint(tmp_path, "", (f"input.pages={'1' * 4000}-",))) <= 1000


@pytest.mark.parametrize(
    "text",
    [
        *('"{}": 1\n"{}": 2\n', '"{}": 1\n', "prompt: !<{}> x\n"),
        *("model: {name: '{}'}\n", "model: {adapter: '{}'}\n"),
    ],
)
def test_a_key_or_tag_that_holds_credentials_is_not_shown(tmp_path: Path, text: str) -> None:
    uri = "s3://me:hunter2@bucket/key"
    assert "hunter2" not in complaint(tmp_path, text.replace("{}", uri))


def test_a_password_in_place_of_its_variable_is_not_shown(tmp_path: Path) -> None:
    assert "hunter2" not in complaint(tmp_path, "", ("input.password_env=hunter2!",))


def test_a_schema_is_not_named_with_credentials(tmp_path: Path) -> None:
    message = complaint(tmp_path, "", ("schema=s3://me:hunter2@bucket/a.json",))
    assert "hunter2" not in message


@pytest.mark.parametrize("text", ["a." * 50_000, "a://" * 50_000, "a://x?" + "a-_." * 50_000])
def test_looking_for_credentials_takes_time_in_proportion(text: str) -> None:
    started = time.process_time()
    assert not holds_credentials(text)
    assert time.process_time() - started < 2


def judged(value: str, schema: dict[str, object]) -> tuple[State, FailureKind | None]:
    sample = SampleId("d", "/in/d.pdf", 1, (1,))
    generation = Generation('{"a": ' + value + "}", (1,), (0.0,), FinishReason.STOP, 1)
    judge = Validator({"type": "object", "properties": {"a": schema}}).violation
    result = parse_json(Answer(sample, generation), judge)
    return result.state, None if result.failure is None else result.failure.kind


@pytest.mark.parametrize("value", ["0." + "1" * 5000, "1" * 5000, "1" * 100_000 + ".5"])
def test_a_number_of_thousands_of_digits_is_no_answer(value: str) -> None:
    assert judged(value, {"multipleOf": 0.01}) == (State.FAILED, FailureKind.INVALID_JSON)


def test_an_answer_nested_too_deeply_to_be_written_is_no_answer() -> None:
    for depth, state in ((99, State.OK), (100, State.FAILED), (600, State.FAILED)):
        assert judged('{"a":' * depth + "1" + "}" * depth, {})[0] is state
        assert judged("[" * depth + "]" * depth, {})[0] is state


def test_a_long_list_is_told_unique_in_no_time() -> None:
    value = "[" + ",".join(f'{{"a": [{number}]}}' for number in range(20_000)) + "]"
    started = time.process_time()
    assert judged(value, {"uniqueItems": True})[0] is State.OK
    assert time.process_time() - started < 5


def test_a_long_list_of_misfits_is_told_in_no_time() -> None:
    started = time.process_time()
    value = "[" + "{}," * 200_000 + "{}]"
    items = {"type": "object", "required": ["a", "b", "c", "d"]}
    assert judged(value, {"items": items}) == (State.FAILED, FailureKind.SCHEMA_VIOLATION)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("value", "unique"),
    [
        *(("[1, true]", True), ("[0, false]", True), ("[1, 1.0]", False), ('["1", 1]', True)),
        *(('[{"a": 1, "b": 2}, {"b": 2, "a": 1.0}]', False), ("[[1], [true]]", True)),
        *(("[[], {}]", True), ("[null, null]", False), ("[[1, [2]], [1, [2]]]", False)),
    ],
)
def test_items_are_unique_as_json_compares_them(value: str, unique: bool) -> None:
    assert (judged(value, {"uniqueItems": True})[0] is State.OK) == unique


@pytest.mark.parametrize("twice", ["properties", "allOf"])
def test_a_schema_that_unfolds_to_millions_is_refused(twice: str) -> None:
    def node(level: int) -> dict[str, object]:
        below = {"$ref": f"#/$defs/d{level + 1}"}
        return {twice: {"a": below, "b": below} if twice == "properties" else [below, below]}

    definitions = {**{f"d{level}": node(level) for level in range(24)}, "d24": {"type": "string"}}
    top = {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": definitions}
    with pytest.raises(SchemaError, match="unfolds to over"):
        make_schema(top, "bomb", "bomb")
