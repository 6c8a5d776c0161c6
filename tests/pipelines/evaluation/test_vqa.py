"""Answer accuracies by the official rules; an empty answer is never right."""

import json
from pathlib import Path

import pytest

from pipelines.evaluation.metrics.vqa import aokvqa_direct, exact_match, normalise_answer, soft_accuracy, vqa


@pytest.mark.parametrize(
    "answer, normalised",
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
def test_official_normalisation(answer: str, normalised: str) -> None:
    assert normalise_answer(answer) == normalised


@pytest.mark.parametrize("agreeing, accuracy", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_soft_accuracy_leaves_one_annotator_out(agreeing: int, accuracy: float) -> None:
    answers = ["dog"] * agreeing + ["cat"] * (10 - agreeing)
    assert soft_accuracy("A dog.", answers) == pytest.approx(accuracy)


def test_annotators_who_all_agree_are_compared_as_they_wrote() -> None:
    # The official code normalises answers only where annotators differ: "wi-fi" stays, the prediction does not.
    assert soft_accuracy("wi-fi", ["wi-fi"] * 10) == 0
    assert soft_accuracy("wi-fi", ["wi-fi"] * 9 + ["net"]) == 1


@pytest.mark.parametrize("answer", ["", "  ", "the", "...", "?"])
def test_an_empty_answer_is_never_right(answer: str) -> None:
    assert vqa([answer], [[""] * 10]).value == 0
    assert vqa([answer], [["?"] * 5 + ["!"] * 5]).value == 0
    assert vqa([answer], [[""] * 10]).counts["empty_answers"] == 1


def test_a_substring_is_not_an_answer() -> None:
    assert vqa(["do"], [["dog"] * 10]).value == 0


def test_the_annotators_own_answers_on_real_questions(shared: Path) -> None:
    file = json.loads((shared / "data/coco/vqav2.json").read_text())
    rows = file["annotations"] if isinstance(file, dict) else file
    references = [[answer["answer"] for answer in row["answers"]] for row in rows]
    best = [max(set(given), key=given.count) for given in references]
    assert vqa(best, references).value > 0.8
    assert vqa(["zzz"] * len(references), references).value == 0


def test_too_few_annotators_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        vqa(["dog"], [["dog"]])


def test_aokvqa_direct_counts_equal_answers_up_to_three() -> None:
    found = aokvqa_direct(["Candle ", "cake", ""], [["candle"] * 2 + ["x"] * 8, ["cake"] * 5, [""] * 10])
    assert found.per_sample.tolist() == pytest.approx([2 / 3, 1, 0])


def test_exact_match_ignores_case_and_a_full_stop() -> None:
    found = exact_match(["Bathroom.", "bath", "", "No"], [["bathroom"], ["bathroom"], [""], ["yes", "no"]])
    assert found.per_sample.tolist() == [1, 0, 0, 1]
    assert found.counts["empty_answers"] == 1
