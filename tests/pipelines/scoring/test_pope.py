"""POPE digit for digit as the official scorer prints it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.scoring.metrics.pope import pope, says_yes


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("category", ["adversarial", "random"])
def test_digit_for_digit(shared: Path, category: str) -> None:
    folder = shared / "data/metrics/pope"
    category_of = {row["question_id"]: row["category"] for row in read(folder / "llava_pope_test.jsonl")}
    answers = [
        row["text"] for row in read(folder / "llava-v1.5-7b.jsonl") if category_of[row["question_id"]] == category
    ]
    labels = [row["label"] for row in read(folder / f"coco_pope_{category}.json")]
    scores = pope(answers, labels[: len(answers)], file_questions=len(labels))
    printed = (folder / "POPE_results.txt").read_text()
    block = re.search(rf"([^=]*)Category: {category}, # samples: {len(answers)}\n", printed)
    assert block is not None
    names = ("Accuracy", "Precision", "Recall", "F1 score", "Yes ratio")
    numbers = {name: re.search(rf"{name}: (\S+)", block[1]) for name in names}
    keys = ("accuracy", "precision", "recall", "f1", "yes_rate")
    for name, key in zip(names, keys, strict=True):
        official = numbers[name]
        assert official is not None
        assert str(scores.estimates[key].value) == official[1]
    outcome = [scores.counts[name] for name in ("true_positive", "false_positive", "true_negative", "false_negative")]
    assert "\t".join(map(str, outcome)) in block[1]
    assert str(len(labels)) in scores.notes["questions"]


@pytest.mark.parametrize(
    "answer, yes",
    [
        ("Yes", True),
        ("No", False),
        ("no, there is not", False),
        ("There is not. Yes", False),
        ("Yes. No", True),
        ("Nothing", True),
        ("NO", True),  # as the official scorer reads it
    ],
)
def test_official_reading_of_answers(answer: str, yes: bool) -> None:
    assert says_yes(answer) is yes


def test_an_empty_answer_is_officially_a_yes_and_strictly_wrong() -> None:
    answers, labels = ["", " ", "yes"], ["yes", "no", "yes"]
    official, strict = pope(answers, labels), pope(answers, labels, rule="strict")
    assert official.per_sample.tolist() == [1, 0, 1]
    assert strict.per_sample.tolist() == [0, 0, 1]
    assert official.counts["empty_answers"] == strict.counts["empty_answers"] == 2
    assert "official" in official.notes["rule"]
    assert "empty answer is wrong" in strict.notes["rule"]


def test_all_readings_on_demand() -> None:
    scores = pope(["yes", "Yes.", "No, but yes", "", "NO"], ["yes", "yes", "no", "no", "no"], compare=True)
    values = {name: estimate.value for name, estimate in scores.estimates.items() if name.startswith("accuracy")}
    expected = {
        "accuracy": 3 / 5,
        "accuracy[strict]": 3 / 5,
        "accuracy[lmms_eval]": 2 / 5,
        "accuracy[vlmevalkit]": 3 / 5,
    }
    assert values == pytest.approx(expected)
    assert scores.estimates["yes_rate[lmms_eval]"].value == pytest.approx(2 / 5)
    assert "yes_rate[vlmevalkit]" not in scores.estimates
    assert list(pope(["yes"], ["yes"]).estimates) == ["f1", "accuracy", "precision", "recall", "yes_rate"]


def test_answers_that_say_neither_are_counted() -> None:
    assert pope(["a dog", "Nothing", "No."], ["yes"] * 3).counts["neither_yes_nor_no"] == 2


def test_without_any_yes_nothing_divides_by_zero() -> None:
    scores = pope(["no", "no"], ["no", "no"])
    assert (scores.value, scores.estimates["accuracy"].value) == (0, 1)


def test_more_answers_than_questions_and_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="file of 1 questions"):
        pope(["yes", "no"], ["yes", "no"], file_questions=1)
    with pytest.raises(ValueError, match="maybe"):
        pope(["yes"], ["maybe"])
