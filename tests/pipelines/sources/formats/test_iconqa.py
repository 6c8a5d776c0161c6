"""IconQA: problems with text choices and with blanks. Problems whose choices are images are refused."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import QuestionFiles, read_images, read_questions, records
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write

SPLITS = {
    "choose_txt_train": ["1"], "choose_txt_val": [], "choose_txt_test": ["2"], "choose_txt_minitrain": ["1"],
    "fill_in_blank_train": ["3"], "fill_in_blank_val": [], "fill_in_blank_test": [],
    "choose_img_train": ["4"], "choose_img_val": [], "choose_img_test": [],
}  # fmt: skip


def problem(kind: str = "choose_txt", **changes: Any) -> dict[str, Any]:
    """Return a problem with the keys of problems.json."""
    choices = ["square", "circle"] if kind == "choose_txt" else ["choice_0.png"] if kind == "choose_img" else None
    answer: Any = "3" if kind == "fill_in_blank" else 1
    facts = {"grade": "grade1", "label": "S2", "skills": ["geometry"], "ques_type": kind}
    return {"question": "What shape is this?", "choices": choices, "answer": answer, **facts, **changes}


def read(write: Write, split: str | None, **changes: Any) -> list[QuestionRecord | BadRecord]:
    write(SPLITS, "pid_splits.json")
    problems = {"1": problem(**changes), "2": problem(), "3": problem("fill_in_blank"), "4": problem("choose_img")}
    return list(read_questions("iconqa", QuestionFiles(write(problems, "problems.json"), split=split)))


def test_choices_and_blanks(write: Write) -> None:
    choice, blank = read(write, "train")
    assert choice == QuestionRecord(
        "1", "iconqa/train/choose_txt/1", "vqa_choice", "image", "What shape is this?", ("circle",),
        choices=("square", "circle"), correct_choice=1, split="train",
    )  # fmt: skip
    assert isinstance(blank, QuestionRecord)
    assert (blank.answers, blank.choices, blank.image_id) == (("3",), (), "iconqa/train/fill_in_blank/3")


@pytest.mark.parametrize(
    ("split", "ids"),
    [(None, ["1", "2", "3"]), ("choose_txt_test", ["2"]), ("choose_txt_minitrain", ["1"]), ("test", ["2"])],
)
def test_splits_by_their_names(write: Write, split: str | None, ids: list[str]) -> None:
    rows = read(write, split)
    assert [record.sample_id for record in rows if isinstance(record, QuestionRecord)] == ids


@pytest.mark.parametrize("split", ["choose_img_train", "nowhere"])
def test_a_split_that_cannot_be_read_is_the_users_mistake(write: Write, split: str) -> None:
    with pytest.raises(UserError, match=f"no readable split {split}.*choose_txt_train"):
        read(write, split)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": 2}, records.WRONG_VALUE),
        ({"answer": "1"}, records.WRONG_TYPE),
        ({"choices": None}, records.WRONG_TYPE),
        ({"question": " "}, records.EMPTY_TEXT),
    ],
)
def test_a_bad_problem_becomes_a_bad_record(write: Write, changes: dict[str, Any], reason: str) -> None:
    rows = read(write, "train", **changes)
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in rows if isinstance(record, QuestionRecord)] == ["3"]


def test_pictures_have_the_ids_that_problems_refer_to(tmp_path: Path) -> None:
    folder = tmp_path / "iconqa/train/choose_txt/1"
    folder.mkdir(parents=True)
    for name in ("image.png", "choice_0.png"):
        (folder / name).touch()
    (record,) = read_images("iconqa_folder", None, str(tmp_path / "iconqa"))
    assert isinstance(record, ImageRecord)
    assert record.image_id == "iconqa/train/choose_txt/1"
