"""COCO instances: boxes inside their images."""

from typing import Any

import pytest

from pipelines.sources import records
from pipelines.sources.formats.coco_instances import InstanceBox, read_boxes
from pipelines.sources.records import BadRecord
from tests.pipelines.sources.conftest import Write


def document(*annotations: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 50}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": list(annotations),
    }


def box(bbox: Any, **changes: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 1, "category_id": 18, "bbox": bbox, "iscrowd": 0, **changes}


def test_a_box_is_read(write: Write) -> None:
    assert list(read_boxes(write(document(box([1, 2.5, 10, 20]))))) == [InstanceBox("5", "1", (1.0, 2.5, 10.0, 20.0))]


def test_an_overshoot_of_two_pixels_is_cut(write: Write) -> None:
    (record,) = read_boxes(write(document(box([-1.5, 10, 50, 41.5]))))
    assert isinstance(record, InstanceBox)
    assert record.box == (0.0, 10.0, 48.5, 40.0)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (box([90, 10, 20, 10]), records.BOX_OUTSIDE_IMAGE),
        (box([200, 10, 20, 10]), records.BOX_OUTSIDE_IMAGE),
        (box([100.5, 10, 1, 10]), records.BOX_OUTSIDE_IMAGE),
        (box([10, 10, 0, 10]), records.BOX_WITHOUT_AREA),
        (box([30, 30, -10, -10]), records.BOX_WITHOUT_AREA),
        (box([1, 2, 3]), records.WRONG_TYPE),
        (box([1, 2, 3, "4"]), records.WRONG_TYPE),
        (box([1, 2, 3, 4], image_id=7), records.UNKNOWN_IMAGE),
        (box([1, 2, 3, 4], category_id=7), records.WRONG_VALUE),
        ({"id": 5}, records.MISSING_KEY),
    ],
)
def test_a_bad_box_becomes_a_bad_record(write: Write, entry: Any, reason: str) -> None:
    rows = list(read_boxes(write(document(entry, box([1, 1, 9, 9], id=6)))))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.annotation_id for record in rows if isinstance(record, InstanceBox)] == ["6"]


def test_crowds_are_left_out_unless_requested_by_id(write: Write) -> None:
    path = write(document(box([1, 1, 9, 9], iscrowd=1)))
    assert not list(read_boxes(path))
    assert len(list(read_boxes(path, frozenset({"5"})))) == 1
    assert not list(read_boxes(path, frozenset({"6"})))
