"""The verb from outside."""

import subprocess
import sys
from pathlib import Path


def run(*options: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.pretrain_tiny", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def test_help_says_what_each_part_has_seen(root: Path) -> None:
    shown = " ".join(run("--help", root=root).stdout.split())

    assert "It has seen text alone" in shown
    assert "It has seen drawn images alone" in shown


def test_the_yaml_beside_it_is_read_and_an_unknown_part_is_refused(root: Path, tmp_path: Path) -> None:
    ended = run(
        "--config", "jobs/pretrain_tiny.yaml", "--parts", "[vision, hearing]", "--out", str(tmp_path), root=root
    )

    assert ended.returncode == 2
    assert "no part hearing" in ended.stderr
    assert list(tmp_path.iterdir()) == []
