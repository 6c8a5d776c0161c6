"""Predictions from users: the column `prediction` is enough, and a wrong file is refused with a sentence."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.tables import INSTRUCTIONS, PREDICTIONS, to_table
from pipelines.scoring.predictions import join_references, load_predictions


def write(folder: Path, columns: dict[str, Any]) -> str:
    path = folder / "predictions.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def instruction(sample_id: str, answers: list[str]) -> dict[str, Any]:
    return {
        "sample_id": sample_id,
        "image_id": "1",
        "task": "vqa",
        "level": "image",
        "instruction": "What?",
        "answers": answers,
        "box": None,
    }


def test_one_column_is_enough(tmp_path: Path) -> None:
    loaded = load_predictions(write(tmp_path, {"prediction": ["a", ""]}), "vqa")
    assert loaded.schema == PREDICTIONS
    assert loaded["sample_id"].to_pylist() == ["0", "1"]
    assert loaded["task"].to_pylist() == ["vqa", "vqa"]


def test_other_spellings_of_types_are_cast(tmp_path: Path) -> None:
    columns = {
        "sample_id": [7, 8],
        "prediction": pa.array(["a", "b"], pa.large_string()),
        "references": ["x", None],
        "box": [[0.0, 0.0, 1.0, 1.0], None],
        "extra": [1, 2],
    }
    loaded = load_predictions(write(tmp_path, columns), "vqa")
    assert loaded["sample_id"].to_pylist() == ["7", "8"]
    assert loaded["references"].to_pylist() == [["x"], None]
    assert loaded["box"].to_pylist() == [[0, 0, 1, 1], None]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"answer": ["a"]}, "no column 'prediction'"),
        ({"prediction": [1.5]}, "column 'prediction' has the type double, but must be string"),
        ({"prediction": ["a"], "references": [3]}, r"column 'references' has the type int64, but must be list<string>"),
        ({"prediction": ["a"], "box": ["0,0,1,1"]}, "column 'box' has the type string"),
        ({"prediction": ["a", None]}, "null in 1 rows"),
        ({"prediction": ["a", "b"], "sample_id": ["1", "1"]}, "'1' of task 'vqa' occurs 2 times"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_predictions(write(tmp_path, columns), "vqa")


def test_without_task_a_benchmark_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--benchmark"):
        load_predictions(write(tmp_path, {"prediction": ["a"]}), None)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        load_predictions(str(tmp_path / "none.parquet"), "vqa")
    with pytest.raises(UserError, match="no Parquet file"):
        load_predictions(str(tmp_path), "vqa")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        load_predictions(str(tmp_path / "text.parquet"), "vqa")


def test_unanswered_samples_count_as_wrong_and_are_counted(tmp_path: Path) -> None:
    instructions = to_table([instruction("1", ["a"]), instruction("2", ["b"])], INSTRUCTIONS)
    predictions = load_predictions(write(tmp_path, {"sample_id": ["2", "9"], "prediction": ["b", "c"]}), "vqa")
    joined, counts = join_references(predictions, instructions)
    assert joined["prediction"].to_pylist() == ["", "b"]
    assert joined["references"].to_pylist() == [["a"], ["b"]]
    assert counts == {"missing_predictions": 1, "unknown_predictions": 1}


def test_predictions_of_other_samples_are_refused(tmp_path: Path) -> None:
    predictions = load_predictions(write(tmp_path, {"prediction": ["b"]}), "vqa")
    with pytest.raises(UserError, match="different samples"):
        join_references(predictions, to_table([instruction("x", ["a"])], INSTRUCTIONS))
