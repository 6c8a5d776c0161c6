"""Referring expression comprehension: accuracy of the predicted box at IoU thresholds."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipelines.scoring.estimates import Scores, bootstrap_mean, require_pairs
from pipelines.scoring.metrics.metric import FRACTION, Metric
from pipelines.sources.boxes import AUTO, BORDER, UNREADABLE, Box, BoxFormat, Size, clip, has_area, iou, read_box

THRESHOLDS = (0.5, 0.1, 0.75)
_ROUNDING = 1e-9  # so that an overlap of exactly one half does not fail by the last bit of a division
_LARGEST_SIDE = 1e5  # pixels: stands for the size of an image where predictions and true boxes are both in pixels


def rec(
    predictions: Sequence[str],
    references: Sequence[Sequence[float]],
    form: BoxFormat = AUTO,
    sizes: Sequence[Size | None] | None = None,
) -> Scores:
    """Compute the accuracy at IoU >= 0.5 (primary), 0.1 and 0.75, and the mean IoU.

    Args:
        predictions: (n) answers in any notation that `pipelines.sources.boxes` reads; an unreadable answer is wrong
            and is counted by its reason.
        references: (n) true boxes, x1, y1, x2, y2, normalized to [0, 1]. With the scale `pixels` and without `sizes`
            they are in pixels too.
        form: the format of boxes in the predictions: scale, and order of the numbers.
        sizes: (n) width and height of the images, for predictions in pixels.

    Raises:
        ValueError: the lists differ in length or are empty, a reference is no box of the expected scale, or the size of
            an image is missing.
    """
    require_pairs(len(predictions), len(references))
    in_pixels = form.scale == "pixels" and sizes is None
    truth = [_of_pixels(reference) if in_pixels else _checked(reference) for reference in references]
    all_sizes = _sizes(form, sizes, len(predictions))
    boxes = [read_box(prediction, form, size) for prediction, size in zip(predictions, all_sizes, strict=True)]
    overlaps = np.array(
        [0.0 if isinstance(box, str) else iou(box, true) for box, true in zip(boxes, truth, strict=True)],
        dtype=np.float64,
    )
    hits = {threshold: (overlaps >= threshold - _ROUNDING).astype(np.float64) for threshold in THRESHOLDS}
    estimates = {f"acc@{threshold:g}": bootstrap_mean(hit) for threshold, hit in hits.items()}
    reasons = Counter(box for box in boxes if isinstance(box, str))
    return Scores(
        metric="rec",
        primary="acc@0.5",
        estimates=estimates | {"mean_iou": bootstrap_mean(overlaps)},
        per_sample=hits[THRESHOLDS[0]],
        counts={
            "samples": len(boxes),
            "unreadable_answers": reasons.total(),
            "empty_answers": sum(not prediction.strip() for prediction in predictions),
            **{f"unreadable_{reason}": reasons[reason] for reason in UNREADABLE if reasons[reason]},
        },
        notes=_notes(form, in_pixels, reasons["scale_unknown"]),
    )


def _notes(form: BoxFormat, in_pixels: bool, unknown_scale: int) -> dict[str, str]:
    notes = {"boxes": str(form)}
    if in_pixels:
        notes["border"] = (
            "predictions and true boxes are in pixels; boxes are not cut to the image, whose size is unknown"
        )
    if unknown_scale:
        notes["scale_unknown"] = (
            f"{unknown_scale} answers have numbers above 1, whose scale the text does not show; set "
            "scoring.box_scale to 999, 1000 or pixels"
        )
    return notes


def _sizes(form: BoxFormat, sizes: Sequence[Size | None] | None, n: int) -> Sequence[Size | None]:
    if form.scale != "pixels":
        return [None] * n
    if sizes is None:
        return [(_LARGEST_SIDE, _LARGEST_SIDE)] * n
    if missing := sum(size is None for size in sizes):
        raise ValueError(
            f"Boxes in pixels need the size of their image, but {missing} of {n} rows have none; give the `tagged` "
            "folder whose table has width and height of all images."
        )
    return sizes


def _checked(reference: Sequence[float]) -> Box:
    """Return a true box in [0, 1]; a coordinate that rounding put outside is cut."""
    if len(reference) != 4 or not has_area(reference) or min(reference) < -BORDER or max(reference) > 1 + BORDER:
        raise ValueError(
            f"A true box must be x1, y1, x2, y2 within [0, 1] and have an area, but a row has {list(reference)}; "
            "divide pixels by the image's width and height."
        )
    return clip(reference)


def _of_pixels(reference: Sequence[float]) -> Box:
    """Return a true box in pixels, divided by the same side as the predictions; the IoU does not depend on the side."""
    if len(reference) != 4 or not has_area(reference) or max(reference) <= 1 + BORDER:
        raise ValueError(
            f"Predictions are in pixels, but the true box {list(reference)} is not x1, y1, x2, y2 in pixels. Give true "
            "boxes in pixels, or the `tagged` folder, whose table has width and height of the images."
        )
    x1, y1, x2, y2 = (value / _LARGEST_SIDE for value in reference)
    return x1, y1, x2, y2


METRIC = Metric(
    name="rec",
    primary=f"acc@{THRESHOLDS[0]:g}",
    bounds={**{f"acc@{threshold:g}": FRACTION for threshold in THRESHOLDS}, "mean_iou": FRACTION},
    score=lambda inputs: rec(
        inputs.predictions, inputs.references, inputs.config.box_format(inputs.benchmark), inputs.sizes
    ),
    references="box",
)
