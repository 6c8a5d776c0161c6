"""`python -m jobs.precompute`: exit codes, the JSON line, and progress on stderr."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.cli import make_parser
from pipelines.precompute import PrecomputeConfig
from tests.pipelines.precompute.worlds import folder_config


def run(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.precompute", "--ray.address", "local", "--ray.local_cpus", "4", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def options_of(config: PrecomputeConfig) -> list[str]:
    return [
        "--source.kind", "folder", "--source.images", config.source.images, "--tagger.kind", "table",
        "--tagger.path", config.tagger.path, "--out", config.out, "--shard_rows", "4",
    ]  # fmt: skip


def test_a_run_a_refusal_and_a_finished_run(root: Path, tmp_path: Path) -> None:
    config = folder_config(tmp_path, count=6)
    (tmp_path / "images/picture-0003.jpg").write_bytes(b"")
    refused = run(root, *options_of(config))
    assert (refused.returncode, refused.stdout) == (3, ""), refused.stderr
    assert "1 of 6 inputs are bad (empty 1)" in refused.stderr
    assert "Traceback" not in refused.stderr

    done = run(root, *options_of(config), "--max_bad_fraction", "0.5")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert {key: result[key] for key in ("step", "skipped", "rows_in", "rows", "quarantined")} == {
        "step": "precompute", "skipped": False, "rows_in": 6, "rows": 5, "quarantined": 1,
    }  # fmt: skip
    assert "6/6 images (100 %)" in done.stderr

    again = run(root, *options_of(config))
    assert (again.returncode, json.loads(again.stdout)) == (0, {**result, "skipped": True})
    assert "nothing to do" in again.stderr


@pytest.mark.parametrize(
    "options, message",
    [
        (["--tagger.kind", "oracle"], "oracle"),
        (["--source.images", "/no/such/folder"], "/no/such/folder"),
        (["--tagger.actors", "50"], "at the same time"),
        (["--tager.kind", "ram"], "Did you mean tagger.kind?"),
    ],
)
def test_a_user_error_is_a_sentence_with_exit_code_2(
    root: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = run(root, *options_of(folder_config(tmp_path, count=1)), *options)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_yaml_file_of_the_job_has_the_defaults(root: Path) -> None:
    path = root / "jobs/precompute.yaml"
    parser = make_parser("precompute", PrecomputeConfig)
    from_file = parser.parse_args(["--config", str(path)]).as_dict()
    defaults = parser.parse_args([]).as_dict()
    del from_file["config"], defaults["config"]
    assert from_file == defaults
    assert set(yaml.safe_load(path.read_text())) <= set(defaults)
