"""RefCOCO: the official pickle, read without running code, and JSON lines."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import records
from pipelines.sources.formats.refcoco import load_refs, read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write

INSTANCES = {
    "images": [{"id": 7, "file_name": "7.jpg", "width": 100, "height": 100}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [
        {"id": 70, "image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20], "iscrowd": 0},
        {"id": 71, "image_id": 7, "category_id": 1, "bbox": [10, 10, 400, 20], "iscrowd": 0},
    ],
}


def ref(number: int = 0, ann_id: Any = 70, sentences: Any = ("man", "man on left"), **changes: Any) -> dict[str, Any]:
    """Return a ref with the keys of refs(unc).p."""
    entries = [
        {"tokens": str(text).split(), "raw": text, "sent_id": 10 * number + index, "sent": text}
        for index, text in enumerate(sentences)
    ]
    return {
        "sent_ids": [sentence["sent_id"] for sentence in entries],
        "file_name": "COCO_train2014_000000000007_0.jpg",
        "ann_id": ann_id,
        "ref_id": number,
        "image_id": 7,
        "split": "val",
        "sentences": entries,
        "category_id": 1,
        **changes,
    }


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_the_official_form(write: Write, protocol: int) -> None:
    write(INSTANCES, "instances.json")
    path = write(pickle.dumps([ref(0), ref(1, split="testA")], protocol), "refs(unc).p")
    assert list(read_questions(path, "val")) == [
        QuestionRecord("0", "7", "rec", "region", "man", (), (10, 10, 20, 20), region_id="70", split="val"),
        QuestionRecord("1", "7", "rec", "region", "man on left", (), (10, 10, 20, 20), region_id="70", split="val"),
    ]


def test_text_written_by_python_2(write: Write) -> None:
    """Read the opcode S of protocol 0, which Python 2 writes for `str`."""
    path = write(b"(lp0\nS'caf\\xc3\\xa9'\np1\na.", "refs(unc).p")
    assert load_refs(path) == ["café"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (ref(1, ann_id=99), records.UNKNOWN_REGION),
        (ref(1, image_id=8), records.UNKNOWN_REGION),
        (ref(1, sentences=[""]), records.EMPTY_TEXT),
        (ref(1, sentences=["\udce9"]), records.WRONG_TYPE),
        (ref(1, split=None), records.WRONG_TYPE),
        (ref(0, sentences=["again"]), records.DUPLICATE_ID),
        ("ref", records.WRONG_TYPE),
        ({"split": "val"}, records.MISSING_KEY),
    ],
)
def test_a_bad_ref_becomes_a_bad_record(write: Write, monkeypatch: pytest.MonkeyPatch, entry: Any, reason: str) -> None:
    write(INSTANCES, "instances.json")
    path = write(b"", "refs(unc).p")
    monkeypatch.setattr("pipelines.sources.formats.refcoco.load_refs", lambda _: [ref(0, sentences=["man"]), entry])
    rows = list(read_questions(path, "val"))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.text for record in rows if isinstance(record, QuestionRecord)] == ["man"]


def test_a_ref_to_a_box_outside_its_image(write: Write) -> None:
    write(INSTANCES, "instances.json")
    rows = list(read_questions(write(pickle.dumps([ref(0, ann_id=71)]), "refs(unc).p"), None))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [
        records.BOX_OUTSIDE_IMAGE,
        records.UNKNOWN_REGION,
    ]


class Hostile:
    """An object that creates a file when pickle loads it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_hostile_pickle_is_refused_and_nothing_runs(write: Write, tmp_path: Path) -> None:
    target = tmp_path / "made"
    path = write(pickle.dumps([Hostile(str(target))]), "refs(unc).p")
    with pytest.raises(UserError, match=r"mkdir.*No code of it was run"):
        load_refs(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04\x95", pickle.dumps({"refs": []})])
def test_something_else_is_the_users_mistake(write: Write, content: bytes) -> None:
    with pytest.raises(UserError, match=r"refs\(unc\).p"):
        load_refs(write(content, "refs(unc).p"))


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": "refcoco",
        "split": "val",
        "index": number,
        "image_id": 7,
        "ann_id": 70,
        "expression": "man",
        "bbox_xywh": [10, 10, 20, 20],
        **changes,
    }


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (line(0), records.DUPLICATE_ID),
        (line(1, bbox_xywh=[10, 10, -5, 5]), records.BOX_WITHOUT_AREA),
        (line(1, expression="\t"), records.EMPTY_TEXT),
        ("{", records.BROKEN_LINE),
    ],
)
def test_json_lines(write: Write, entry: Any, reason: str) -> None:
    rows = list(read_questions(write([line(0), entry, line(5, split="test")], "refs.jsonl", lines=True), "val"))
    assert rows[0] == QuestionRecord(
        "refcoco-val-0", "7", "rec", "region", "man", (), (10, 10, 20, 20), region_id="70", split="val"
    )
    assert [record.reason for record in rows[1:] if isinstance(record, BadRecord)] == [reason]
