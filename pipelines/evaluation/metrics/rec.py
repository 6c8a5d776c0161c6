"""Referring expression comprehension: accuracy of the predicted box at IoU thresholds."""

from collections.abc import Sequence

import numpy as np

from pipelines.boxes import Box, has_area, iou, parse_box
from pipelines.evaluation.estimates import Scores, bootstrap_mean, require_pairs

THRESHOLDS = (0.5, 0.1, 0.75)
_ROUNDING = 1e-9  # an overlap of exactly one half must not fail by the last bit of a division


def rec(predictions: Sequence[str], references: Sequence[Sequence[float]]) -> Scores:
    """Accuracy at IoU >= 0.5 (primary), 0.1 and 0.75, and the mean IoU.

    Args:
        predictions: (n) answers in any notation that `pipelines.boxes` reads; an unreadable one is wrong, and counted.
        references: (n) true boxes, x1, y1, x2, y2, normalised to [0, 1].

    Raises:
        ValueError: the lists differ in length or are empty, or a reference is not a normalised box.
    """
    require_pairs(len(predictions), len(references))
    truth = [_checked(reference) for reference in references]
    found = [parse_box(prediction) for prediction in predictions]
    overlaps = np.array(
        [iou(parsed.box, box) if parsed else 0.0 for parsed, box in zip(found, truth, strict=True)], dtype=np.float64
    )
    hits = {threshold: (overlaps >= threshold - _ROUNDING).astype(np.float64) for threshold in THRESHOLDS}
    estimates = {f"acc@{threshold:g}": bootstrap_mean(hit) for threshold, hit in hits.items()}
    return Scores(
        metric="rec",
        primary="acc@0.5",
        estimates=estimates | {"mean_iou": bootstrap_mean(overlaps)},
        per_sample=hits[THRESHOLDS[0]],
        counts={
            "samples": len(found),
            "unreadable_answers": sum(parsed is None for parsed in found),
            "empty_answers": sum(not prediction.strip() for prediction in predictions),
        },
    )


def _checked(reference: Sequence[float]) -> Box:
    if len(reference) != 4 or not has_area(reference) or min(reference) < 0 or max(reference) > 1:
        raise ValueError(
            f"A true box must be x1, y1, x2, y2 within [0, 1] and have an area, but one is {list(reference)}; divide "
            "pixels by the image's width and height."
        )
    x1, y1, x2, y2 = reference
    return x1, y1, x2, y2
