"""`python -m jobs.pretrain_tiny`: its help and its checks."""

import subprocess
import sys
from pathlib import Path


def run(*options: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.pretrain_tiny", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def test_help_describes_the_training_data_of_each_part(root: Path) -> None:
    text = " ".join(run("--help", root=root).stdout.split())

    assert "The T5. Its data are text: scenes described in words and boxes" in text
    assert "The ViT. Its data are drawn images" in text


def test_its_yaml_file_is_read_and_an_unknown_part_is_refused(root: Path, tmp_path: Path) -> None:
    done = run("--config", "jobs/pretrain_tiny.yaml", "--parts", "[vision, hearing]", "--out", str(tmp_path), root=root)

    assert done.returncode == 2
    assert "no part hearing" in done.stderr
    assert list(tmp_path.iterdir()) == []
