"""Answer accuracies by the official rules and by those of the harnesses; each result names its rule."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.scoring.metrics.answer_rules import RULES, VqaRule, normalize_answer
from pipelines.scoring.metrics.vqa import aokvqa_direct, exact_match, soft_accuracy, vqa


@pytest.mark.parametrize(
    "answer, normalized",
    [
        ("The Dog.", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("1,000", "1000"),
        ("red/blue", "red blue"),
        ("hi!", "hi"),
        ("yes, sir", "yes sir"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("dont", "don't"),
        ("wouldnt've", "wouldn't've"),
        ("lets", "lets"),
        ("somebody'd", "somebodyd"),
        ("t-shirt", "t shirt"),
        (" a\nb\t", "b"),
        ("the", ""),
        ("?", ""),
    ],
)
def test_official_normalization(answer: str, normalized: str) -> None:
    assert normalize_answer(answer) == normalized


@pytest.mark.parametrize("agreeing, accuracy", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_soft_accuracy_leaves_one_annotator_out(agreeing: int, accuracy: float) -> None:
    answers = ["dog"] * agreeing + ["cat"] * (10 - agreeing)
    assert soft_accuracy("dog", answers) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    "prediction, answers, by_rule",
    [
        ("wi-fi", ["wi-fi"] * 10, {"official": 1, "lavis": 0, "lmms_eval": 1, "vlmevalkit": 1}),
        ("wi-fi", ["wi-fi"] * 9 + ["net"], {"official": 1, "lavis": 1, "lmms_eval": 1, "vlmevalkit": 1}),
        ("two", ["two"] * 10, {"official": 1, "lavis": 0, "lmms_eval": 1, "vlmevalkit": 1}),
        ("two", ["two"] * 9 + ["2"], {"official": 1, "lavis": 0.3, "lmms_eval": 1, "vlmevalkit": 1}),
        ("Yes", ["yes"] * 10, {"official": 0, "lavis": 1, "lmms_eval": 1, "vlmevalkit": 1}),
        (" yes\n", ["yes"] * 10, {"official": 1, "lavis": 1, "lmms_eval": 1, "vlmevalkit": 1}),
        ("", ["a"] * 3 + ["dog"] * 7, {"official": 0.9, "lavis": 0, "lmms_eval": 0.9, "vlmevalkit": 0.9}),
        ("", [""] * 10, {"official": 1, "lavis": 1, "lmms_eval": 1, "vlmevalkit": 1}),
        ("5", ["5."] * 9 + ["6"], {"official": 1, "lavis": 1, "lmms_eval": 1, "vlmevalkit": 0}),
    ],
)
def test_rules_differ_in_what_they_normalize(
    prediction: str, answers: list[str], by_rule: dict[VqaRule, float]
) -> None:
    assert {rule: soft_accuracy(prediction, answers, rule) for rule in RULES} == pytest.approx(by_rule)


def test_lmms_eval_parts_possessives_for_ok_vqa_alone() -> None:
    answers = ["dog 's"] * 10
    assert soft_accuracy("dog's", answers, "lmms_eval", "okvqa") == 1
    assert soft_accuracy("dog's", answers, "lmms_eval", "vqav2") == 0


def test_a_result_names_its_rule_and_compares_on_demand() -> None:
    plain = vqa(["Yes"], [["yes"] * 10])
    assert plain.value == 0
    assert "official" in plain.notes["rule"]
    assert list(plain.estimates) == ["soft_accuracy"]
    compared = vqa(["Yes"], [["yes"] * 10], "lavis", compare=True)
    assert "lavis" in compared.notes["rule"]
    assert {name: result.value for name, result in compared.estimates.items()} == {
        "soft_accuracy": 1, "soft_accuracy[official]": 0, "soft_accuracy[lmms_eval]": 1, "soft_accuracy[vlmevalkit]": 1,
    }  # fmt: skip


def test_empty_answers_are_counted_and_named_where_the_rule_takes_them_as_right() -> None:
    result = vqa(["", "the", "dog"], [["a"] * 3 + ["dog"] * 7, ["dog"] * 10, ["dog"] * 10])
    assert result.counts == {"samples": 3, "empty_answers": 2, "empty_answers_taken_as_right": 1}


def test_official_accuracy_of_the_reported_case(shared: Path) -> None:
    folder = next(shared.glob("cases/03-*"))
    table = pq.read_table(folder / "vqa.parquet")
    result = vqa(table["prediction"].to_pylist(), table["references"].to_pylist())
    assert result.per_sample.tolist() == [1, 1, 1, 0]


def test_a_substring_is_not_an_answer() -> None:
    assert vqa(["do"], [["dog"] * 10]).value == 0


def test_the_annotators_own_answers_on_real_questions(shared: Path) -> None:
    file = json.loads((shared / "data/coco/vqav2.json").read_text())
    rows = file["annotations"] if isinstance(file, dict) else file
    references = [[answer["answer"] for answer in row["answers"]] for row in rows]
    best = [max(set(answers), key=answers.count) for answers in references]
    assert vqa(best, references).value > 0.8
    assert vqa(["zzz"] * len(references), references).value == 0


def test_too_few_annotators_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        vqa(["dog"], [["dog"]])


def test_aokvqa_direct_counts_equal_answers_up_to_three_as_plain_strings() -> None:
    references = [["candle"] * 2 + ["x"] * 8, ["cake"] * 5, ["cake"] * 10]
    result = aokvqa_direct(["candle", "cake", "Cake"], references, compare=True)
    assert result.per_sample.tolist() == pytest.approx([2 / 3, 1, 0])
    assert "plain equality" in result.notes["rule"]
    assert result.estimates["direct_answer[lower_case]"].value == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_exact_match_ignores_case_and_a_full_stop() -> None:
    result = exact_match(["Bathroom.", "bath", "", "No"], [["bathroom"], ["bathroom"], [""], ["yes", "no"]])
    assert result.per_sample.tolist() == [1, 0, 0, 1]
    assert result.counts["empty_answers"] == 1


def test_exact_match_compares_with_plain_equality_and_lavis() -> None:
    result = exact_match(["Bathroom.", "two", "the cat"], [["bathroom"], ["two"], ["cat"]], compare=True)
    values = {name: estimate.value for name, estimate in result.estimates.items()}
    assert values == pytest.approx({"accuracy": 2 / 3, "accuracy[plain]": 1 / 3, "accuracy[lavis]": 2 / 3})
    assert "empty answer is wrong" in result.notes["rule"]
