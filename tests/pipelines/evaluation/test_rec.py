"""Referring expressions: thresholds, notations, unreadable answers."""

import json
from pathlib import Path

import pytest

from pipelines.boxes import format_box, normalise_xywh
from pipelines.evaluation.metrics.rec import rec

BOX = (0.1, 0.1, 0.5, 0.5)


def test_thresholds_and_unreadable_answers() -> None:
    answers = ["Answer: [0.100,0.100,0.500,0.500]", "[a](0.1,0.1,0.5,0.3)", "[0.4,0.4,0.5,0.5]", "no idea", ""]
    found = rec(answers, [BOX] * 5)
    values = {name: estimate.value for name, estimate in found.estimates.items()}
    assert values["acc@0.5"] == pytest.approx(0.4)  # the second overlaps by exactly one half
    assert values["acc@0.1"] == pytest.approx(0.4)
    assert values["acc@0.75"] == pytest.approx(0.2)
    assert values["mean_iou"] == pytest.approx((1 + 0.5 + 0.01 / 0.16) / 5)
    assert found.counts == {"samples": 5, "unreadable_answers": 2, "empty_answers": 1}
    assert found.per_sample.tolist() == [1, 1, 0, 0, 0]


def test_answers_on_a_scale_of_a_thousand() -> None:
    assert rec(["[100,100,500,500]"], [BOX]).value == 1


def test_true_boxes_written_as_text_score_all_of_refcoco(shared: Path) -> None:
    lines = next((shared / "data/refcoco").glob("*.jsonl")).read_text().splitlines()[:500]
    rows = [json.loads(line) for line in lines]
    truth = [normalise_xywh(row["bbox_xywh"], 640, 640) for row in rows]  # no COCO image has a longer side
    found = rec([format_box(box) for box in truth], truth)
    assert found.value == 1
    assert found.estimates["mean_iou"].value > 0.98


@pytest.mark.parametrize("reference", [(10, 10, 50, 50), (0.5, 0.5, 0.1, 0.1), (0.1, 0.1)])
def test_references_that_are_no_normalised_box_are_refused(reference: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        rec(["[0,0,1,1]"], [reference])
