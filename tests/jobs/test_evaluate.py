"""`python -m jobs.evaluate` on predictions: one JSON line, exit codes, no heavy import."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def evaluate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.evaluate", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def predictions(tmp_path: Path) -> str:
    path = tmp_path / "predictions.parquet"
    pq.write_table(
        pa.table(
            {
                "prediction": ["a dog.", "2 cats", ""],
                "references": [["dog"] * 9 + ["cat"], ["two cats"] * 10, ["x"] * 10],
            }
        ),
        path,
    )
    return str(path)


def test_metrics_of_existing_predictions(root: Path, tmp_path: Path, predictions: str) -> None:
    arguments = ("--predictions", predictions, "--benchmark", "okvqa", "--out", str(tmp_path / "out"))
    first = evaluate(root, *arguments)
    assert first.returncode == 0, first.stderr
    line = json.loads(first.stdout)
    assert line["step"] == "evaluate"
    assert line["rows"] == 3
    # The official code normalizes neither answer, because all annotators agree: "2 cats" is not "two cats".
    assert line["metrics"]["vqa"]["soft_accuracy"] == pytest.approx(1 / 3)
    assert "LION-4B" in first.stderr
    assert "rule: official" in first.stderr
    assert "the published numbers are by the rule lavis" in first.stderr
    assert "empty_answers 1" in first.stderr
    again = json.loads(evaluate(root, *arguments).stdout)
    assert again["skipped"]
    assert again["metrics"] == line["metrics"]


def test_scores_by_all_rules(root: Path, tmp_path: Path, predictions: str) -> None:
    arguments = ("--predictions", predictions, "--benchmark", "okvqa", "--out", str(tmp_path / "out"))
    line = json.loads(evaluate(root, *arguments, "--scoring.compare", "true").stdout)
    assert line["metrics"]["vqa"] == pytest.approx(
        {
            "soft_accuracy": 1 / 3,
            "soft_accuracy[lavis]": 1 / 3,
            "soft_accuracy[lmms_eval]": 2 / 3,
            "soft_accuracy[vlmevalkit]": 2 / 3,
        }
    )
    lavis = json.loads(evaluate(root, *arguments, "--scoring.vqa", "lavis").stdout)
    document = json.loads((Path(lavis["path"]) / "metrics.json").read_text())
    assert "lavis" in document["tasks"]["vqa"]["notes"]["rule"]


def test_a_user_error_is_a_sentence_with_exit_code_2(root: Path, tmp_path: Path, predictions: str) -> None:
    wrong = evaluate(root, "--predictions", predictions, "--benchmark", "okvqaa", "--out", str(tmp_path))
    assert wrong.returncode == 2
    assert "did you mean 'okvqa'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_scoring_and_help_import_no_heavy_package(root: Path, tmp_path: Path, predictions: str) -> None:
    code = (
        "import sys; from jobs.evaluate import run; from pipelines.evaluation.config import EvaluateConfig\n"
        f"run(EvaluateConfig(benchmark='okvqa', predictions={predictions!r}, out={str(tmp_path)!r}))\n"
        "print(sorted({'ray', 'torch', 'transformers', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert evaluate(root, "--help").returncode == 0
