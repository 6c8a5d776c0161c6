"""Rows of the instructions table: answers, boxes and references by task and mode."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.boxes import parse_box
from pipelines.errors import UserError
from pipelines.instructions.builder import IMAGE_NOT_TAGGED, UNKNOWN_SIZE, TaggedImages, build_rows
from pipelines.instructions.config import InstructionSet
from pipelines.sources import records
from pipelines.sources.records import BadRecord, QuestionRecord

IMAGE = ("/images/7.jpg", 200, 100)


class OneImage(TaggedImages):
    """Image 7 and no other, of a size or of none."""

    def __init__(self, image: tuple[str, int | None, int | None] = IMAGE) -> None:
        self.image = image

    def get(self, image_id: str) -> tuple[str, int | None, int | None] | None:
        return self.image if image_id == "7" else None


def build(
    monkeypatch: pytest.MonkeyPatch,
    found: list[QuestionRecord | BadRecord],
    images: TaggedImages | None = None,
    left_out: Counter[str] | None = None,
    **settings: Any,
) -> tuple[list[dict[str, Any]], list[BadRecord]]:
    monkeypatch.setattr("pipelines.instructions.builder.read_questions", lambda kind, files: iter(found))
    entry = InstructionSet(**{"name": "s", "kind": "refcoco", "annotations": "a.jsonl", **settings})
    built = list(
        build_rows(entry, OneImage() if images is None else images, 0, Counter() if left_out is None else left_out)
    )
    rows = [row for row in built if not isinstance(row, BadRecord)]
    return rows, [row for row in built if isinstance(row, BadRecord)]


def expression(text: str = "man", sample_id: str = "1", **changes: Any) -> QuestionRecord:
    values: dict[str, Any] = {"box": (20.0, 10.0, 40.0, 50.0), "region_id": "70", **changes}
    return QuestionRecord(sample_id, values.pop("image_id", "7"), "rec", "region", text, (), **values)


def question(answers: tuple[str, ...], **changes: Any) -> QuestionRecord:
    return QuestionRecord("1", "7", "vqa", "image", "What?", answers, **changes)


def test_rec_answers_with_the_normalised_box(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,), _ = build(monkeypatch, [expression()])
    assert row["answers"] == ["Answer: [0.100,0.100,0.300,0.600]"]
    assert row["box"] == pytest.approx([0.1, 0.1, 0.3, 0.6])
    assert (row["sample_id"], row["level"], row["task"]) == ("s:rec:1", "region", "rec")
    assert ": man" in row["instruction"]
    parsed = parse_box(row["answers"][0])
    assert parsed is not None
    assert parsed.box == pytest.approx(row["box"], abs=0.0005)


def test_reg_shows_the_box_and_answers_with_the_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = build(monkeypatch, [expression("man", "1"), expression("left man", "2")], tasks=["reg"])
    assert [row["answers"] for row in rows] == [["man"], ["left man"]]
    assert all("[0.100,0.100,0.300,0.600]" in row["instruction"] for row in rows)


def test_reg_is_scored_against_all_expressions_of_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[QuestionRecord | BadRecord] = [
        expression("man", "1"),
        expression("dog", "2", region_id="71"),
        expression("left man", "3"),
    ]
    rows, _ = build(monkeypatch, found, tasks=["rec", "reg"], mode="evaluate")
    assert [row["answers"] for row in rows if row["task"] == "reg"] == [["man", "left man"], ["dog"]]
    assert sum(row["task"] == "rec" for row in rows) == 3


@pytest.mark.parametrize(("mode", "answers"), [("train", [["cat"]]), ("evaluate", [["dog", "cat", "cat"]])])
def test_vqa_trains_on_the_consensus(monkeypatch: pytest.MonkeyPatch, mode: str, answers: list[list[str]]) -> None:
    rows, _ = build(monkeypatch, [question(("dog", "cat", "cat"))], kind="vqa", mode=mode)
    assert [row["answers"] for row in rows] == answers


@pytest.mark.parametrize(("mode", "answers"), [("train", [["a"], ["b"]]), ("evaluate", [["a", "b"]])])
def test_each_caption_is_a_sample_of_training(monkeypatch: pytest.MonkeyPatch, mode: str, answers: list) -> None:
    rows, _ = build(
        monkeypatch, [QuestionRecord("7", "7", "caption", "image", "", ("a", "b"))], kind="coco_captions", mode=mode
    )
    assert [row["answers"] for row in rows] == answers
    assert len({row["sample_id"] for row in rows}) == len(rows)


def test_choices_stand_in_the_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(("dog",), choices=("cat", "dog"), correct_choice=1)
    rows, _ = build(monkeypatch, [asked], kind="aokvqa", tasks=["vqa", "vqa_choice"])
    assert [row["task"] for row in rows] == ["vqa", "vqa_choice"]
    assert rows[1]["answers"] == ["dog"]
    assert "cat, dog" in rows[1]["instruction"]
    assert "cat, dog" not in rows[0]["instruction"]


def test_difficult_direct_answers_are_left_out_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(("dog",), choices=("cat", "dog"), correct_choice=1, difficult=True)
    for mode, tasks in (("train", ["vqa", "vqa_choice"]), ("evaluate", ["vqa_choice"])):
        left_out: Counter[str] = Counter()
        rows, _ = build(monkeypatch, [asked], None, left_out, kind="aokvqa", tasks=["vqa", "vqa_choice"], mode=mode)
        assert [row["task"] for row in rows] == tasks
        assert left_out.total() == 2 - len(tasks)


def test_a_benchmarks_own_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = build(monkeypatch, [question(("dog",))], kind="vqa", prompt="Question: {text} Short answer:")
    assert rows[0]["instruction"] == "Question: What? Short answer:"


@pytest.mark.parametrize(
    ("found", "images", "reason", "uri"),
    [
        (expression(image_id="8"), OneImage(), IMAGE_NOT_TAGGED, None),
        (expression(box=(190.0, 10.0, 40.0, 50.0)), OneImage(), records.BOX_OUTSIDE_IMAGE, IMAGE[0]),
        (expression(), OneImage((IMAGE[0], None, None)), UNKNOWN_SIZE, IMAGE[0]),
        (question(()), OneImage(), records.NO_ANSWER, IMAGE[0]),
        (BadRecord("7", None, "annotation", records.EMPTY_TEXT, "x"), OneImage(), records.EMPTY_TEXT, None),
    ],
)
def test_what_cannot_be_used_is_set_aside(
    monkeypatch: pytest.MonkeyPatch,
    found: QuestionRecord | BadRecord,
    images: TaggedImages,
    reason: str,
    uri: str | None,
) -> None:
    task = found.task if isinstance(found, QuestionRecord) else "rec"
    _, bad = build(monkeypatch, [found], images, tasks=[task])
    assert [(record.reason, record.uri) for record in bad] == [(reason, uri)]


def test_the_rows_after_a_bad_one_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, bad = build(monkeypatch, [expression(box=(190.0, 10.0, 40.0, 50.0)), expression(sample_id="2")])
    assert len(bad) == 1
    assert [row["sample_id"] for row in rows] == ["s:rec:2"]


def test_tagged_images_are_found_by_id(world: Path, tagged: Path) -> None:
    images = TaggedImages(str(tagged))
    assert len(images) == 54
    found = images.get("100000003")
    assert found is not None
    assert found[0] == str(world / "images/sample_train_000100000003.png")
    assert max(found[1] or 0, found[2] or 0) == 64
    assert images.get("300000000") is None, "images of test are not tagged"


def test_another_folder_is_the_users_mistake(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Parquet"):
        TaggedImages(str(tmp_path))
    with pytest.raises(UserError, match=r"lacks.*uri"):
        TaggedImages(str(world))
