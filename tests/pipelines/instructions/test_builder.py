"""Rows of the instructions table: answers, boxes and references by task and mode."""

from collections import Counter
from typing import Any

import pytest

from pipelines.instructions.builder import UNKNOWN_SIZE, Wording, build_rows
from pipelines.instructions.config import InstructionSet
from pipelines.instructions.images import Picture
from pipelines.sources import records
from pipelines.sources.boxes import parse_box
from pipelines.sources.grounding import from_lion, from_markdown
from pipelines.sources.records import BadRecord, QuestionRecord

PICTURE = Picture("/images/7.jpg", 200, 100)
LION = Wording(seed=0)


def build(
    questions: list[QuestionRecord],
    picture: Picture = PICTURE,
    left_out: Counter[str] | None = None,
    wording: Wording = LION,
    expressions: tuple[str, ...] | None = None,
    **settings: Any,
) -> tuple[list[dict[str, Any]], list[BadRecord]]:
    """Return the rows of questions about one picture, and the records that could not be used."""
    entry = InstructionSet(**{"name": "s", "kind": "refcoco", "annotations": "a.jsonl", **settings})
    counts = Counter[str]() if left_out is None else left_out
    built = [row for record in questions for row in build_rows(entry, record, picture, wording, counts, expressions)]
    rows = [row for row in built if not isinstance(row, BadRecord)]
    return rows, [row for row in built if isinstance(row, BadRecord)]


def expression(text: str = "man", sample_id: str = "1", **changes: Any) -> QuestionRecord:
    values: dict[str, Any] = {"box": (20.0, 10.0, 40.0, 50.0), "region_id": "70", **changes}
    return QuestionRecord(sample_id, values.pop("image_id", "7"), "rec", "region", text, (), **values)


def question(answers: tuple[str, ...], **changes: Any) -> QuestionRecord:
    return QuestionRecord("1", "7", "vqa", "image", "What?", answers, **changes)


def test_rec_answers_with_the_normalized_box() -> None:
    (row,), _ = build([expression()])
    assert row["answers"] == ["Answer: [0.100,0.100,0.300,0.600]"]
    assert row["box"] == pytest.approx([0.1, 0.1, 0.3, 0.6])
    assert (row["sample_id"], row["level"], row["task"]) == ("s:rec:1", "region", "rec")
    assert ": man" in row["instruction"]
    parsed = parse_box(row["answers"][0])
    assert parsed is not None
    assert parsed.box == pytest.approx(row["box"], abs=0.0005)


def test_reg_shows_the_box_and_answers_with_the_expression() -> None:
    rows, _ = build([expression("man", "1"), expression("left man", "2")], tasks=["reg"])
    assert [row["answers"] for row in rows] == [["man"], ["left man"]]
    assert all("[0.100,0.100,0.300,0.600]" in row["instruction"] for row in rows)


def test_reg_is_scored_against_all_expressions_of_a_region_once() -> None:
    settings: dict[str, Any] = {"tasks": ["rec", "reg"], "mode": "evaluate"}
    first, _ = build([expression("man", "1")], expressions=("man", "left man"), **settings)
    later, _ = build([expression("left man", "2")], expressions=(), **settings)
    assert [(row["task"], row["answers"]) for row in first if row["task"] == "reg"] == [("reg", ["man", "left man"])]
    assert [row["task"] for row in later] == ["rec"]


@pytest.mark.parametrize(
    ("notation", "answer", "shown"),
    [
        ("lion", "Answer: [0.100,0.100,0.300,0.600]", "[0.100,0.100,0.300,0.600]"),
        ("markdown", "Answer: [man](0.100,0.100,0.300,0.600)", "[this](0.100,0.100,0.300,0.600)"),
        ("kosmos2", "Answer: <phrase>man</phrase><object><patch_index_0099><patch_index_0617></object>",
         "<phrase>this</phrase><object><patch_index_0099><patch_index_0617></object>"),
    ],
)  # fmt: skip
def test_boxes_are_written_in_the_builds_notation(notation: Any, answer: str, shown: str) -> None:
    rows, _ = build([expression()], wording=Wording(0, notation), tasks=["rec", "reg"])
    assert rows[0]["answers"] == [answer]
    assert shown in rows[1]["instruction"]
    form = {"lion": "[x1,y1,x2,y2]", "markdown": "[phrase](x1,y1,x2,y2)",
            "kosmos2": "<phrase>phrase</phrase><object><patch_index_first><patch_index_last></object>"}  # fmt: skip
    assert form[notation] in rows[0]["instruction"]


def test_a_grounded_caption_has_its_boxes_in_the_text() -> None:
    phrases = (("A man", (20.0, 10.0, 40.0, 50.0)), (" in ", None), ("a hat", (20.0, 10.0, 20.0, 10.0)), (" .", None))
    text = "A man in a hat ."
    record = QuestionRecord("1", "7", "grounded_caption", "region", text, (text,), phrases=phrases)
    lion, markdown = (
        build([record], wording=Wording(0, notation), kind="flickr30k_entities")[0][0]["answers"][0]
        for notation in ("lion", "markdown")
    )
    assert lion == "A man [0.100,0.100,0.300,0.600] in <p>a hat</p> [0.100,0.100,0.200,0.200] ."
    assert markdown == "[A man](0.100,0.100,0.300,0.600) in [a hat](0.100,0.100,0.200,0.200) ."
    assert from_lion(lion) == from_markdown(markdown)
    (caption,), _ = build([record], kind="flickr30k_entities", tasks=["caption"])
    assert caption["answers"] == [text]


@pytest.mark.parametrize(("mode", "answers"), [("train", [["cat"]]), ("evaluate", [["dog", "cat", "cat"]])])
def test_vqa_trains_on_the_consensus(mode: str, answers: list[list[str]]) -> None:
    rows, _ = build([question(("dog", "cat", "cat"))], kind="vqa", mode=mode)
    assert [row["answers"] for row in rows] == answers


@pytest.mark.parametrize(("mode", "answers"), [("train", [["a"], ["b"]]), ("evaluate", [["a", "b"]])])
def test_each_caption_is_a_sample_of_training(mode: str, answers: list) -> None:
    rows, _ = build([QuestionRecord("7", "7", "caption", "image", "", ("a", "b"))], kind="coco_captions", mode=mode)
    assert [row["answers"] for row in rows] == answers
    assert len({row["sample_id"] for row in rows}) == len(rows)


def test_choices_stand_in_the_instruction() -> None:
    record = question(("dog",), choices=("cat", "dog"), correct_choice=1)
    rows, _ = build([record], kind="aokvqa", tasks=["vqa", "vqa_choice"])
    assert [row["task"] for row in rows] == ["vqa", "vqa_choice"]
    assert rows[1]["answers"] == ["dog"]
    assert "cat, dog" in rows[1]["instruction"]
    assert "cat, dog" not in rows[0]["instruction"]


def test_difficult_direct_answers_are_left_out_of_evaluation() -> None:
    record = question(("dog",), choices=("cat", "dog"), correct_choice=1, difficult=True)
    for mode, tasks in (("train", ["vqa", "vqa_choice"]), ("evaluate", ["vqa_choice"])):
        left_out: Counter[str] = Counter()
        rows, _ = build([record], PICTURE, left_out, kind="aokvqa", tasks=["vqa", "vqa_choice"], mode=mode)
        assert [row["task"] for row in rows] == tasks
        assert left_out.total() == 2 - len(tasks)


def test_a_question_without_choices_is_left_out_of_multiple_choice() -> None:
    left_out: Counter[str] = Counter()
    rows, bad = build([question(("3",))], PICTURE, left_out, kind="iconqa", tasks=["vqa_choice", "vqa"])
    assert ([row["task"] for row in rows], bad, left_out) == (["vqa"], [], {"without_choices": 1})


def test_a_benchmarks_own_wording() -> None:
    rows, _ = build([question(("dog",))], kind="vqa", prompt="Question: {text} Short answer:")
    assert rows[0]["instruction"] == "Question: What? Short answer:"


@pytest.mark.parametrize(
    ("record", "picture", "reason"),
    [
        (expression(box=(190.0, 10.0, 40.0, 50.0)), PICTURE, records.BOX_OUTSIDE_IMAGE),
        (expression(), Picture(PICTURE.uri, None, None), UNKNOWN_SIZE),
        (question(()), PICTURE, records.NO_ANSWER),
    ],
)
def test_records_that_cannot_be_used_are_set_aside(record: QuestionRecord, picture: Picture, reason: str) -> None:
    _, bad = build([record], picture, tasks=[record.task])
    assert [(row.reason, row.uri, row.image_id) for row in bad] == [(reason, picture.uri, "7")]


def test_the_rows_after_a_bad_one_are_built() -> None:
    rows, bad = build([expression(box=(190.0, 10.0, 40.0, 50.0)), expression(sample_id="2")])
    assert len(bad) == 1
    assert [row["sample_id"] for row in rows] == ["s:rec:2"]
