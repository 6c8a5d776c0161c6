"""`python -m jobs.sample_world`: a JSON line on stdout, and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.sample_world", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def test_a_world_is_drawn_once(root: Path, tmp_path: Path) -> None:
    arguments = ("--config", "jobs/sample_world.yaml", "--out", str(tmp_path), "--images", "20", "--preset", "tiny")
    first = run(root, *arguments)
    assert first.returncode == 0, first.stderr
    line = json.loads(first.stdout)
    assert (line["step"], line["rows"], line["skipped"]) == ("sample_world", 20, False)
    assert line["splits"] == {"train": 16, "val": 2, "test": 2}
    assert Path(line["path"], "preview.png").is_file()
    assert json.loads(run(root, *arguments).stdout) == {**line, "skipped": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--images", "3"), "at least 10"), (("--image", "30"), "images"), (("--preset", "huge"), "preset")],
)
def test_a_user_error_has_exit_code_2(root: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(root, "--out", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout
