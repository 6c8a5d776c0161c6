"""Jobs from command lines: their ids, and the check that they can run on other machines."""

from pathlib import Path

import pytest

from jobs.submit import make_job, split
from pipelines.core.errors import UserError
from pipelines.operations.submission.job import require_portable

TAGS = ["precompute", "--source.kind", "folder", "--tagger.kind", "table", "--tagger.path", "s3://b/tags.parquet"]


def job_name(*options: str) -> str:
    return make_job([*TAGS, *options]).name


def test_everything_after_two_dashes_is_the_job() -> None:
    assert split(["--stop", "--", "precompute", "--out", "s3://b"]) == [
        "--stop", "--command", '["precompute", "--out", "s3://b"]',
    ]  # fmt: skip
    assert split(["--help"]) == ["--help"]


def test_the_id_depends_on_the_computation_and_its_output_folder() -> None:
    first = job_name("--out", "s3://b/runs", "--max_bad_fraction", "0.02")
    assert first.startswith("lion-precompute-")
    assert job_name("--max_bad_fraction=0.02", "--out=s3://b/runs") == first
    assert job_name("--out", "s3://b/runs", "--max_bad_fraction", "0.02", "--ray.address", "auto") == first
    assert job_name("--out", "s3://b/other", "--max_bad_fraction", "0.02") != first
    assert job_name("--out", "s3://b/runs", "--source.split", "train") != first


@pytest.mark.parametrize("command", [[], ["submit"], ["nothing"], ["cli"], ["../x"]])
def test_an_unknown_verb_is_refused(command: list[str]) -> None:
    with pytest.raises(UserError, match="There is no verb"):
        make_job(command)


def test_a_wrong_option_of_the_job_ends_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        make_job([*TAGS, "--tager.kind", "ram"])
    assert end.value.code == 2
    assert "Did you mean" in capsys.readouterr().err


def test_results_in_the_working_directory_would_be_lost() -> None:
    with pytest.raises(UserError, match=r"--out is 'runs', a folder in the job's working directory"):
        require_portable(make_job(TAGS), [])


def test_an_input_that_only_this_machine_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    job = make_job([*TAGS, "--source.images", "images", "--out", "s3://b/runs"])
    with pytest.raises(UserError, match=r"source\.images \(images\): not part of the repository"):
        require_portable(job, ["jobs/precompute.py"])
    require_portable(job, ["images/a.png"])


def test_the_variables_of_a_pipeline_are_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    job = make_job(["pipeline", "--out", str(tmp_path), "--variables.backbones", "mine"])
    with pytest.raises(UserError, match=r"variables\.backbones \(mine\)"):
        require_portable(job, ["pipelines/sample_world/backbones/weights/card.json"])
