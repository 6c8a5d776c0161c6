"""Scores by benchmark, task and set, from lists and from tables; none of it needs Ray or torch."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.core.errors import UserError
from pipelines.core.parquet import write_file
from pipelines.core.tables import PREDICTIONS, to_table
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.run import evaluate
from pipelines.scoring import ScoringConfig, score, score_table
from pipelines.scoring.benchmarks import parse


def table(*rows: tuple[str, str, str, Any]) -> pa.Table:
    """Return a table of predictions from rows of sample_id, task, prediction, and references or the true box."""
    columns = [
        {
            "sample_id": sample_id,
            "image_id": "1",
            "task": task,
            "prediction": prediction,
            "references": truth if isinstance(truth, list) else None,
            "box": list(truth) if isinstance(truth, tuple) else None,
        }
        for sample_id, task, prediction, truth in rows
    ]
    return to_table(columns, PREDICTIONS)


@pytest.mark.parametrize(
    "name, predictions, references, value",
    [
        ("coco_caption", ["a dog", "a cat"], [["a dog"], ["a dog"]], None),
        ("okvqa", ["dog"], [["dog"] * 10], 1),
        ("aokvqa_direct", ["dog"], [["dog"]], 1 / 3),
        ("gqa", ["dog"], ["dog"], 1),
        ("refcoco+_val", ["[0,0,1,1]"], ["Answer: [0.000,0.000,1.000,1.000]"], 1),
        ("refcocog_test", ["[0,0,1,1]"], [[0, 0, 1, 1]], 1),
        ("pope_popular", ["yes"], ["yes"], 1),
        ("vqa_choice", ["Dog."], [["dog"]], 1),
    ],
)
def test_a_benchmark_means_its_metric(
    name: str, predictions: list[str], references: list[Any], value: float | None
) -> None:
    result = score(name, predictions, references)
    assert result.n == len(predictions)
    if value is not None:
        assert result.value == pytest.approx(value)


def test_rules_are_a_setting_of_the_scoring() -> None:
    answers = ["Yes"], [["yes"] * 10]
    assert score("vqav2", *answers).value == 0
    assert score("vqav2", *answers, ScoringConfig(vqa="lavis")).value == 1
    assert score("pope", [""], ["yes"]).estimates["accuracy"].value == 1
    assert score("pope", [""], ["yes"], ScoringConfig(pope="strict")).estimates["accuracy"].value == 0


@pytest.mark.parametrize(
    "name, answer, reference",
    [("okvqa", "dog", ["dog"] * 10), ("gqa", "dog", ["dog"]), ("pope", "no", ["no"]), ("aokvqa_direct", "a", ["a"])],
)
def test_every_result_names_its_rule_and_compares_on_demand(name: str, answer: str, reference: list[str]) -> None:
    result = score(name, [answer], [reference], ScoringConfig(compare=True))
    assert result.as_dict()["notes"]["rule"]
    others = [key for key in result.estimates if key.startswith(f"{result.primary}[")]
    assert others
    assert result.primary == next(iter(result.estimates))


def test_no_interval_leaves_the_range_of_its_number() -> None:
    draw = random.Random(0)
    texts = ["a dog", "a red dog on a bus", "", "two cats", "no", "yes", "[0,0,1,1]", "[0.1,0.1,0.5,0.5]"]
    cases = {
        "caption": lambda: [draw.choice(texts[:4]), "a dog"],
        "vqav2": lambda: [draw.choice(texts) for _ in range(10)],
        "gqa": lambda: [draw.choice(texts)],
        "aokvqa_direct": lambda: [draw.choice(texts) for _ in range(10)],
        "pope": lambda: draw.choice(["yes", "no"]),
        "rec": lambda: [0.0, 0.0, draw.uniform(0.1, 1), 1.0],
    }
    for name, reference in cases.items():
        for n in (1, 2, 3, 7):
            config = ScoringConfig("ptb-python", compare=True)
            scores = score(name, [draw.choice(texts) for _ in range(n)], [reference() for _ in range(n)], config)
            for key, result in scores.estimates.items():
                largest = 10 if key == "CIDEr" else 1
                assert 0 <= result.low <= result.high <= largest + 1e-12, (name, key, result)


def test_boxes_are_read_in_the_format_of_the_benchmark_or_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "tasks: {rec: {metric: rec, max_new_tokens: 8}}\n"
        "benchmarks: {gemini: {task: rec, boxes: {scale: 1000, order: yxyx}}}"
    )
    monkeypatch.setattr("pipelines.scoring.scorer.benchmark_table", lambda: parse(text))
    truth = [(0.2, 0.3, 0.6, 0.7)]
    answer = ['{"box_2d": [300, 200, 700, 600]}']
    assert score("gemini", answer, truth).value == 1
    assert score("rec", answer, truth).counts["unreadable_scale_unknown"] == 1
    assert score("rec", answer, truth, ScoringConfig(box_scale=1000, box_order="yxyx")).value == 1
    overruled = score("gemini", ["[200,300,600,700]"], truth, ScoringConfig(box_order="xyxy"))
    assert (overruled.value, overruled.notes["boxes"]) == (1, "scale 1000, order xyxy")


def test_a_true_box_as_text_has_the_scale_of_the_predictions_where_it_does_not_show_its_own() -> None:
    config = ScoringConfig(box_scale=1000, box_order="yxyx")
    for reference in ("[200,300,600,700]", "Answer: [0.200,0.300,0.600,0.700]"):
        assert score("rec", ["[300,200,700,600]"], [[reference]], config).value == 1
    with pytest.raises(ValueError, match="scale_unknown"):
        score("rec", ["[0.2,0.3,0.6,0.7]"], [["[200,300,600,700]"]])


def test_pixels_are_divided_by_the_sizes_of_the_tagged_table(tmp_path: Path) -> None:
    predictions, tagged = str(tmp_path / "predictions.parquet"), str(tmp_path / "tagged.parquet")
    write_file(predictions, table(("1", "rec", "[64,48,320,240]", (0.1, 0.1, 0.5, 0.5))))
    sizes = pa.table({"image_id": ["2", "1"], "width": [100, 640], "height": [100, 480]})
    write_file(tagged, sizes)
    base = EvaluateConfig(predictions=predictions, out=str(tmp_path), scoring=ScoringConfig(box_scale="pixels"))
    assert evaluate(replace(base, tagged=tagged)).summary["rec.acc@0.5"] == 1
    with pytest.raises(UserError, match="or the `tagged` folder"):
        evaluate(base)
    write_file(tagged, sizes.slice(0, 1))
    with pytest.raises(UserError, match="1 of 1 rows have none"):
        evaluate(replace(base, tagged=tagged))
    write_file(tagged, sizes.select(["image_id"]))
    with pytest.raises(UserError, match="lacks the columns"):
        evaluate(replace(base, tagged=tagged))


def test_scoring_imports_neither_ray_nor_torch_nor_mlflow(root: Path) -> None:
    code = (
        "import sys; from pipelines.scoring import score; score('okvqa', ['a dog'], [['dog'] * 10]);"
        "score('caption', ['a dog'], [['a dog']]);"
        "print(sorted({'ray', 'torch', 'transformers', 'mlflow'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_task_by_its_own_metric() -> None:
    result = score_table(
        table(
            ("1", "vqa", "dog", ["dog"] * 10), ("2", "rec", "[0,0,1,1]", (0, 0, 1, 0.9)), ("3", "pope", "no", ["no"])
        ),
        "mixed",
    )
    assert {task: scores.metric for task, scores in result.items()} == {"vqa": "vqa", "rec": "rec", "pope": "pope"}
    assert result["rec"].value == 1


def test_sets_of_one_task_are_never_averaged() -> None:
    rows = table(
        ("pope_random:pope:1", "pope", "yes", ["yes"]),
        ("pope_popular:pope:1", "pope", "no", ["yes"]),
        ("7", "pope", "no", ["no"]),
    )
    result = score_table(rows, "mixed")
    assert {key: scores.n for key, scores in result.items()} == {
        "pope_random:pope": 1,
        "pope_popular:pope": 1,
        "unnamed:pope": 1,
    }
    assert score_table(rows, "pope_popular")["pope"].estimates["accuracy"].value == 0


def test_a_set_with_a_benchmarks_name_is_scored_as_that_benchmark() -> None:
    result = score_table(table(("aokvqa_direct:vqa:q", "vqa", "dog", ["dog"] * 2)), "mixed")
    assert result["vqa"].metric == "aokvqa_direct"


@pytest.mark.parametrize(
    "rows, name, message",
    [
        ([("1", "vqa", "dog", ["dog"] * 10)], "coco_caption", "needs rows of task 'caption'"),
        ([("1", "dance", "dog", ["dog"])], "mixed", "no benchmark 'dance'"),
        ([("1", "vqa", "dog", None)], "okvqa", "no references"),
        ([("1", "vqa", "dog", ["dog"])], "okvqa", "at least 4"),
        ([("1", "rec", "[0,0,1,1]", ["here"])], "rec", "holds no box"),
        ([("1", "pope", "no", ["yes", "no"])], "pope", "one label"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(rows: list[Any], name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_table(table(*rows), name)
