"""Referring expressions: thresholds, notations, unreadable answers."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.scoring.metrics.rec import rec
from pipelines.sources.boxes import AUTO, BoxFormat, format_box, normalize_xywh

BOX = (0.1, 0.1, 0.5, 0.5)


def test_thresholds_and_unreadable_answers() -> None:
    answers = ["Answer: [0.100,0.100,0.500,0.500]", "[a](0.1,0.1,0.5,0.3)", "[0.4,0.4,0.5,0.5]", "no idea", ""]
    scores = rec(answers, [BOX] * 5)
    values = {name: estimate.value for name, estimate in scores.estimates.items()}
    assert values["acc@0.5"] == pytest.approx(0.4)  # the second overlaps by exactly one half
    assert values["acc@0.1"] == pytest.approx(0.4)
    assert values["acc@0.75"] == pytest.approx(0.2)
    assert values["mean_iou"] == pytest.approx((1 + 0.5 + 0.01 / 0.16) / 5)
    assert scores.counts == {"samples": 5, "unreadable_answers": 2, "empty_answers": 1, "unreadable_no_box": 2}
    assert scores.per_sample.tolist() == [1, 1, 0, 0, 0]


def iou_of(answer: str, truth: Sequence[float], form: BoxFormat = AUTO) -> float:
    return rec([answer], [truth], form).estimates["mean_iou"].value


def test_the_scale_of_an_answer_is_a_setting() -> None:
    """lmms-eval reads the numbers as they are (0), VLMEvalKit divides by 1000 (1); Qwen-VL means 999."""
    truth = (0.2, 0.3, 0.6, 0.7)
    assert iou_of("[200,300,600,700]", truth, BoxFormat(1000)) == pytest.approx(1)
    assert iou_of("[200,300,600,700]", truth, BoxFormat(999)) == pytest.approx(0.996, abs=0.0005)
    assert iou_of("[200,300,600,700]", truth, BoxFormat(1)) == 0
    unknown = rec(["[200,300,600,700]", "[0.2,0.3,0.6,0.7]"], [truth] * 2)
    assert unknown.value == 0.5
    assert unknown.counts["unreadable_scale_unknown"] == 1
    assert "scoring.box_scale" in unknown.notes["scale_unknown"]
    assert unknown.notes["boxes"] == "scale auto, order xyxy"
    assert iou_of("[300,200,700,600]", truth, BoxFormat(1000, "yxyx")) == pytest.approx(1)


def test_numbers_without_commas_and_boxes_over_the_border() -> None:
    assert iou_of("[0.2 0.3 0.6 0.7]", (0.2, 0.3, 0.6, 0.7)) == 1
    # VLMEvalKit cuts the box to the image (0.5), lmms-eval does not (0.4).
    assert iou_of("[0.2,0.0,1.2,1.0]", (0.2, 0.0, 0.6, 1.0)) == pytest.approx(0.5)


def test_what_is_unreadable_is_counted_by_its_reason() -> None:
    answers = ["", "no idea", "[0.1,0.2,0.3]", "[0.1,0.2,0.3,0.4,0.9]", "(0.1,0.2),(0.3,0.3),(0.3,0.4),(0.1,0.4)",
               "[0.4,0.1,0.2,0.3]", "[0.1,0.1,0.1,0.3]", "[-0.9,0.1,0.2,0.3]", "[12,40,300,400]"]  # fmt: skip
    assert rec(answers, [BOX] * 9).counts == {
        "samples": 9, "unreadable_answers": 9, "empty_answers": 1, "unreadable_no_box": 2,
        "unreadable_too_few_numbers": 1, "unreadable_too_many_numbers": 2, "unreadable_swapped_corners": 1,
        "unreadable_no_area": 1, "unreadable_outside": 1, "unreadable_scale_unknown": 1,
    }  # fmt: skip


def test_rounding_over_the_border_is_cut() -> None:
    assert iou_of("[-0.0000001, 0.5, 1.0000001, 1.0]", (-0.0000005, 0.5, 1.0000001, 1.0)) == 1
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        rec(["[0,0,1,1]"], [(0.0, 0.5, 1.00001, 1.0)])


def test_pixels_are_divided_by_the_size_of_their_image() -> None:
    scores = rec(["[64,48,320,240]"] * 2, [BOX] * 2, BoxFormat("pixels"), [(640, 480), (1280, 480)])
    assert scores.per_sample.tolist() == [1, 0]
    with pytest.raises(ValueError, match="1 of 2 rows have none"):
        rec(["[64,48,320,240]"] * 2, [BOX] * 2, BoxFormat("pixels"), [(640, 480), None])


def test_predictions_and_true_boxes_may_both_be_in_pixels() -> None:
    scores = rec(["[64,48,320,240]", "[0,0,320,480]"], [(64, 48, 320, 240), (0, 0, 640, 480)], BoxFormat("pixels"))
    assert scores.estimates["mean_iou"].value == pytest.approx(0.75)
    assert "not cut" in scores.notes["border"]
    with pytest.raises(ValueError, match=r"the true box .* is not x1, y1, x2, y2 in pixels"):
        rec(["[64,48,320,240]"], [BOX], BoxFormat("pixels"))


def test_true_boxes_written_as_text_score_all_of_refcoco(shared: Path) -> None:
    lines = next((shared / "data/refcoco").glob("*.jsonl")).read_text().splitlines()[:500]
    rows = [json.loads(line) for line in lines]
    truth = [normalize_xywh(row["bbox_xywh"], 640, 640) for row in rows]  # no COCO image has a longer side
    scores = rec([format_box(box) for box in truth], truth)
    assert scores.value == 1
    assert scores.estimates["mean_iou"].value > 0.98


@pytest.mark.parametrize("reference", [(10, 10, 50, 50), (0.5, 0.5, 0.1, 0.1), (0.1, 0.1)])
def test_references_that_are_no_normalized_box_are_refused(reference: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        rec(["[0,0,1,1]"], [reference])
