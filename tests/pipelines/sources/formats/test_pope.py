"""POPE: yes or no, as JSON lines or as one array."""

import json
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import QuestionFiles, records
from pipelines.sources import read_questions as read_sources
from pipelines.sources.formats.pope import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    name = "COCO_val2014_000000542145.jpg"
    return {"question_id": number, "image": name, "text": "Is there a sink?", "label": "yes", **changes}


def test_the_image_is_found_by_the_number_in_its_name(write: Write) -> None:
    (record,) = read_questions(write([row()], lines=True))
    assert record == QuestionRecord("1", "542145", "pope", "image", "Is there a sink?", ("yes",))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(1), records.DUPLICATE_ID),
        (row(2, label="maybe"), records.WRONG_VALUE),
        (row(2, label=True), records.WRONG_TYPE),
        ({"question_id": 2}, records.MISSING_KEY),
        ('{"question_id": 2,', records.BROKEN_LINE),
        ("[1, 2]", records.BROKEN_LINE),
    ],
)
def test_a_bad_line_becomes_a_bad_record(write: Write, line: Any, reason: str) -> None:
    results = list(read_questions(write([row(1), line, row(3)], lines=True)))
    assert [record.reason for record in results if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in results if isinstance(record, QuestionRecord)] == ["1", "3"]


def test_a_broken_first_line_does_not_hide_the_rest(write: Write) -> None:
    results = list(read_questions(write(["{", "", row(2)], lines=True)))
    assert [type(record) for record in results] == [BadRecord, QuestionRecord]
    assert isinstance(results[0], BadRecord)
    assert "line 1" in results[0].detail


def test_an_array_is_read_as_lines_are(write: Write) -> None:
    """Read both forms: the authors' files about A-OKVQA and GQA are arrays, their files about COCO are JSON lines."""
    rows = [row(1), row(2, label="no"), row(2), {"question_id": 3}, [4], row(5)]
    array = list(read_questions(write("\n  " + json.dumps(rows, indent=4), "array.json")))
    lines = list(read_questions(write(rows, "lines.json", lines=True)))
    assert [type(record) for record in array] == [type(record) for record in lines]
    assert [record for record in array if isinstance(record, QuestionRecord)] == [
        record for record in lines if isinstance(record, QuestionRecord)
    ]
    reasons = [record.reason for record in array if isinstance(record, BadRecord)]
    assert reasons == [records.DUPLICATE_ID, records.MISSING_KEY, records.WRONG_TYPE]


def test_gqa_pictures_are_never_cocos_of_the_same_number(write: Write) -> None:
    names = ["497943.jpg", "n161313.jpg", "000000497943.jpg", "kitchen_9.jpg"]
    path = write([row(number, image=name) for number, name in enumerate(names)])
    assert [record.image_id for record in read_questions(path)] == [
        "vg/497943",
        "vg/n161313",
        "497943",
        "kitchen_9.jpg",
    ]


@pytest.mark.parametrize(
    ("collection", "ids", "refused"),
    [
        ("coco", ["542145"], "497943.jpg is not named as those of the collection coco"),
        (
            "visual_genome",
            ["vg/497943"],
            "COCO_val2014_000000542145.jpg is not named as those of the collection visual",
        ),
        ("mine", ["mine/COCO_val2014_000000542145.jpg", "mine/497943.jpg"], None),
    ],
)
def test_images_outside_the_named_collection_become_bad_records(
    write: Write, collection: str, ids: list[str], refused: str | None
) -> None:
    path = write([row(1), row(2, image="497943.jpg")])
    results = list(read_sources("pope", QuestionFiles(path, collection=collection)))
    assert [record.image_id for record in results if isinstance(record, QuestionRecord)] == ids
    details = [record.detail for record in results if isinstance(record, BadRecord)]
    assert len(details) == (refused is not None)
    assert refused is None or refused in details[0]


@pytest.mark.parametrize("content", [b"\x80\x04pickle", b"question,label\n1,yes\n"])
def test_a_file_of_another_format_is_the_users_mistake(write: Write, content: bytes) -> None:
    with pytest.raises(UserError, match="not a JSON-lines file: line 1"):
        list(read_questions(write(content)))
