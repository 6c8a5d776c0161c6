"""The curves of a training as one picture."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

_SKIPPED = ("kind", "step", "epoch")


def draw_curves(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Return a PNG with four panels over optimizer steps: loss, learning rates, validation metrics, and speed.

    Args:
        history: the training's records.
        title: title of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [record for record in history if record["kind"] == "train"]
    validation = [record for record in history if record["kind"] == "validation"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    (loss, rates), (metrics, speed) = figure.subplots(2, 2)
    _lines(loss, "loss", {"training": _series(train, "loss"), "validation": _series(validation, "loss")})
    names = sorted({name for record in train for name in record if name.startswith("learning_rate/")})
    _lines(rates, "learning rate", {name.partition("/")[2]: _series(train, name) for name in names})
    names = sorted({name for record in validation for name in record} - {*_SKIPPED, "loss"})
    _lines(metrics, "validation metrics", {name: _series(validation, name) for name in names})
    _lines(speed, "samples per second", {"samples per second": _series(train, "samples_per_second")})
    waiting = speed.twinx()
    waiting.plot(*_series(train, "data_wait"), color="tab:orange", linewidth=1)
    waiting.set_ylim(0, 1)
    waiting.set_ylabel("share of time waiting for data", color="tab:orange")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _series(records: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(record["step"], record[name]) for record in records if name in record]
    return [step for step, _ in points], [value for _, value in points]


def _lines(axes: Any, title: str, series: dict[str, tuple[list[int], list[float]]]) -> None:
    for label, (steps, values) in series.items():
        if steps:
            axes.plot(steps, values, label=label, marker="." if len(steps) < 40 else None, linewidth=1)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize="small")
