"""`python -m jobs.predict`: answers on stdout, then the JSON line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipelines.sample_world.backbones.kept import kept_backbones


def verb(root: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.predict", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300, check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save a tiny LION whose prompt has tags and return its folder."""
    from pipelines.sample_world.backbones.lion import make_lion

    kept = kept_backbones()
    return make_lion(kept.vision, kept.language, kept.tag_encoder, str(tmp_path_factory.mktemp("lion")))


def test_answers_come_before_the_json_line(root: Path, model: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (30, 20), "red").save(tmp_path / f"{name}.png")
    images = f"[{tmp_path / 'a.png'},{tmp_path / 'b.png'}]"
    options = ("--model", model, "--image", images, "--tags", "red: 0.9, circle", "--out", tmp_path / "out")
    done = verb(root, *options, "--task", "vqa", "--text", "What is it?", "--format", "json")
    assert done.returncode == 0, done.stderr
    *answers, last = (json.loads(line) for line in done.stdout.splitlines())
    assert [Path(row["image"]).name for row in answers] == ["a.png", "b.png"]
    assert answers[0]["tags"] == [{"tag": "circle", "score": 1.0}, {"tag": "red", "score": 0.9}]
    assert answers[0]["answer"] == answers[1]["answer"]
    assert (last["step"], last["rows"], last["skipped"]) == ("predict", 2, False)
    assert Path(last["answers"]).read_text().splitlines() == done.stdout.splitlines()[:-1]


def test_a_user_error_is_a_sentence_with_exit_code_2(root: Path, tmp_path: Path) -> None:
    done = verb(root, "--model", "nowhere", "--image", "x.png", "--task", "vqa", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs --text" in done.stderr
    assert "Traceback" not in done.stderr
