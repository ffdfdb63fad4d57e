from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import JobError
from pipeline.pretrain.job import TrainJob, load_train_job

SMALL = {
    "output": "out",
    "minutes": 1,
    "stages": [{"name": "all", "share": 1, "weights": {"eye": 1}}],
}


def written(folder: Path, **changes: object) -> str:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return str(path)


def test_the_bundled_readers_job_is_packaged() -> None:
    job = load_train_job("train_nano", ["minutes=15", "rates.warm_up=10"], output="elsewhere")
    assert (job.name, job.minutes, job.output) == ("nano", 15, "elsewhere")
    assert job.rates.warm_up == 10
    assert job.architecture.grid == (12, 16)
    assert [stage.name for stage in job.stages] == ["eye", "memory", "answers"]
    assert TrainJob.model_validate(job.model_dump()) == job


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"minuets": 3}, "minuets: unknown key; did you mean minutes?"),
        ({"minutes": 0}, "minutes: 0: input should be greater than 0"),
        ({"stages": []}, "stages"),
        ({"stages": [{"name": "a", "share": 0.5, "weights": {}}]}, "shares add up to 0.5"),
        (
            {"stages": [{"name": "a", "share": 1, "weights": {"eyes": 1}}]},
            r"stages\[0\]\.weights\.eyes: unknown key; did you mean eye",
        ),
        ({"architecture": {"canvas": [100, 224]}}, "is not made of whole 14-pixel patches"),
        (
            {"architecture": {"text": {"width": 10, "layers": 1, "heads": 3, "feed_forward": 8}}},
            r"heads \(3\) does not divide width \(10\)",
        ),
    ],
)
def test_a_mistake_is_one_line_naming_file_key_and_mend(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(JobError, match=complaint) as caught:
        load_train_job(written(tmp_path, **changes))
    assert "small.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_job_that_reads_documents_is_not_trained() -> None:
    with pytest.raises(JobError, match="run it with pagelake run"):
        load_train_job("demo")
