"""A served model needs what its own requirements bring along, and nothing else of this environment."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.registry import SERVED_WITH, Kind, requirements
from tests.pipelines.inference.serving import only_required
from tests.pipelines.inference.serving.conftest import Served

TAGS = [{"tag": "red", "score": 0.9}]


def run(served: Served, folder: Path, rows: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, only_required.__file__, str(folder), json.dumps(rows)]
    return subprocess.run(command, cwd=folder.parent, env=served.environment(), capture_output=True, text=True)


def test_a_lion_answers_with_nothing_but_its_requirements(served: Served) -> None:
    rows = [{"image": served.picture, "task": "rec", "text": "the red circle", "tags": TAGS}]
    done = run(served, served.code, rows)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [row["answer"] for row in result["answers"]]
    assert {"ray", "deepspeed", "ijson", "pycocoevalcap", "gradio"} <= set(result["hidden"])


def test_a_tag_encoder_answers_with_nothing_but_its_requirements(served: Served) -> None:
    done = run(served, served.tag_encoder, [{"tags": TAGS}])
    assert done.returncode == 0, done.stderr
    (vector,) = json.loads(done.stdout.splitlines()[-1])["answers"]
    assert len(vector) == 32


def test_a_model_that_imports_more_is_caught(served: Served, tmp_path: Path) -> None:
    """The finder hides what the requirements leave out, also where it is installed here."""
    copy = Path(shutil.copytree(served.tag_encoder, tmp_path / "model"))
    code = copy / "tag_encoder.py"
    code.write_text("import ijson\n" + code.read_text())
    done = run(served, copy, [{"tags": TAGS}])
    assert done.returncode != 0
    assert "No module named 'ijson'" in done.stderr


@pytest.mark.parametrize("kind", list(SERVED_WITH))
def test_requirements_are_pinned_as_the_projects_are(kind: Kind, served: Served, root: Path) -> None:
    logged = (served.code if kind == "lion" else served.tag_encoder) / "requirements.txt"
    assert logged.read_text().split() == requirements(kind)
    pins = dict(re.findall(r"^([\w-]+)(?:\[[^]]*\])?==(.+)$", (root / "requirements.txt").read_text(), re.MULTILINE))
    for line in requirements(kind):
        name, _, version = line.partition("==")
        assert version == pins.get(name, version)


def test_what_a_requirement_brings_along() -> None:
    names = only_required.closure(["mlflow==3.17.2"])
    assert {"mlflow", "mlflow-skinny", "pandas", "pyarrow"} <= names
    assert not names & {"ray", "torch", "ijson"}
