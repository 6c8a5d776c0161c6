"""`python -m jobs.instructions` on a sample world, with sets from a YAML file."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from pipelines.core.tables import TAGGED, to_table
from pipelines.sources import read_images
from pipelines.sources.records import ImageRecord


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.instructions", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def tagged_table(world: Path, path: Path) -> str:
    records = read_images("coco_captions", str(world / "captions_train.json"), str(world / "images"), "train")
    pq.write_table(to_table([vars(row) for row in records if isinstance(row, ImageRecord)], TAGGED), path)
    return str(path)


def test_the_sets_of_the_shipped_file_are_built_once(root: Path, world: Path, tmp_path: Path) -> None:
    shipped = (root / "jobs/instructions.yaml").read_text().replace("world/", f"{world}/")
    config = tmp_path / "instructions.yaml"
    config.write_text(shipped)
    tagged = tagged_table(world, tmp_path / "tagged.parquet")
    arguments = ("--config", str(config), "--tagged", tagged, "--out", str(tmp_path))
    first = run(root, *arguments)
    assert first.returncode == 0, first.stderr
    line = json.loads(first.stdout)
    assert (line["step"], line["skipped"], line["quarantined"]) == ("instructions", False, 0)
    assert set(line["sets"]) == {entry["name"] for entry in yaml.safe_load(shipped)["sets"]}
    assert sum(line["sets"].values()) == line["rows"]
    assert json.loads(run(root, *arguments).stdout) == {**line, "skipped": True}


def test_a_user_error_has_exit_code_2(root: Path, tmp_path: Path) -> None:
    done = run(root, "--tagged", str(tmp_path), "--out", str(tmp_path))
    assert done.returncode == 2
    assert "sets is empty" in done.stderr
    assert not done.stdout
