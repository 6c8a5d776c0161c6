"""Figures of a sweep: the metric over the settings, and the progress of the trials."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from pipelines.sweeps.outcomes import DEFAULT, TrialOutcome
from pipelines.sweeps.space import Range, format_value

_MARKERS = {"finished": "o", "stopped early": "v", "failed": "x"}


def draw_parallel(outcomes: Sequence[TrialOutcome], ranges: Sequence[Range], metric: str, best: TrialOutcome) -> bytes:
    """Draw parallel coordinates as PNG: one axis per field, one for the metric, and one line per trial."""
    drawable = _drawable(outcomes, ranges)
    figure, axes = _figure(1.9 * (len(ranges) + 1) + 2.4, 4.6)
    columns = [_heights(item, drawable) for item in ranges]
    values = [float(outcome.value or 0.0) for outcome in drawable]
    metric_heights = _scaled(values, False)
    color = _colors(values)
    for row, outcome in enumerate(drawable):
        line = [*(column[row] for column in columns), metric_heights[row]]
        is_best = outcome is best
        axes.plot(
            range(len(line)), line, color=color(outcome.value), alpha=1.0 if is_best else 0.7,
            linewidth=3.2 if is_best else 1.3, linestyle="-" if outcome.state == "finished" else ":",
            marker=_MARKERS[outcome.state], markersize=5, zorder=3 if is_best else 2,
        )  # fmt: skip
    for position, item in enumerate(ranges):
        _label_ends(axes, position, item)
    # Equal heights get one label, and only the two ends are labeled: the others would overlap.
    heights = {round(height, 3): value for height, value in zip(metric_heights, values, strict=True)}
    for height, value in heights.items():
        if height in (0.0, 1.0):
            axes.annotate(format_value(value), (len(ranges), height), (8, 0), textcoords="offset points", va="center")
    axes.set_xticks(range(len(ranges) + 1), [*(item.field for item in ranges), metric])
    axes.set_yticks([])
    axes.set_xlim(-0.35, len(ranges) + 0.4)
    axes.set_ylim(-0.1, 1.1)
    for position in range(len(ranges) + 1):
        axes.axvline(position, color="0.6", linewidth=0.8, zorder=1)
    axes.set_title(f"Settings and {metric} of each trial\n(thick line: best, dotted line: stopped early)")
    return _png(figure)


def draw_response(
    outcomes: Sequence[TrialOutcome], ranges: Sequence[Range], metric: str, default: TrialOutcome, best: TrialOutcome
) -> bytes:
    """Draw the metric over each field as PNG, one panel per field. With two fields or more, add a panel over two."""
    pair = len(ranges) > 1
    figure, panels = _figure(4.2 * (len(ranges) + pair), 4.0, len(ranges) + pair)
    drawable = _drawable(outcomes, ranges)
    for axes, item in zip(panels, ranges, strict=False):
        for state, marker in _MARKERS.items():
            group = [outcome for outcome in drawable if outcome.state == state]
            axes.scatter(
                [_coordinate(item, outcome.values[item.field]) for outcome in group],
                [outcome.value for outcome in group], marker=marker, label=state if group else None, alpha=0.8,
            )  # fmt: skip
        if default.value is not None:
            axes.axhline(default.value, color="0.4", linewidth=1, linestyle="--", label="unchanged configuration")
        if best in drawable:
            axes.scatter(
                [_coordinate(item, best.values[item.field])], [best.value], marker="*", s=170, color="tab:red",
                label="best", zorder=3,
            )  # fmt: skip
        _set_axis(axes, "x", item)
        axes.set_xlabel(item.field)
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    if pair:
        first, second, *_ = sorted(ranges, key=lambda item: item.kind == "choice")  # number ranges before choices
        _draw_plane(figure, panels[-1], drawable, first, second, metric)
    return _png(figure)


def draw_progress(outcomes: Sequence[TrialOutcome], metric: str, best: TrialOutcome) -> bytes:
    """Draw the metric of each trial over its progress as PNG, with a triangle where a trial was stopped early."""
    figure, axes = _figure(8.0, 4.6)
    for outcome in outcomes:
        if outcome.history:
            progress, values = zip(*outcome.history, strict=True)
            is_best = outcome.name == best.name
            label = "unchanged configuration" if outcome.name == DEFAULT else f"trial {outcome.name}"
            axes.plot(
                progress, values, marker=".", linewidth=2.8 if is_best else 1.1, alpha=1.0 if is_best else 0.7,
                color="tab:red" if is_best else None, label=label,
            )  # fmt: skip
            if outcome.state == "stopped early":
                axes.plot(progress[-1], values[-1], marker="v", color="0.3", markersize=8)
    axes.set_xlabel("progress of the training, percent")
    axes.set_ylabel(metric)
    axes.set_title(f"{metric} during training (triangle: stopped early)")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize="x-small", ncols=2)
    return _png(figure)


def _drawable(outcomes: Sequence[TrialOutcome], ranges: Sequence[Range]) -> list[TrialOutcome]:
    """Return the outcomes with a metric value and with settings inside all ranges.

    The unchanged configuration may be outside a range.
    """
    inside = [outcome for outcome in outcomes if all(_is_inside(item, outcome.values[item.field]) for item in ranges)]
    return [outcome for outcome in inside if outcome.value is not None]


def _is_inside(item: Range, value: Any) -> bool:
    if item.kind == "choice":
        return value in item.values
    return value is not None and bool(item.values[0] <= value <= item.values[1])


def _draw_plane(
    figure: Any, axes: Any, outcomes: Sequence[TrialOutcome], first: Range, second: Range, metric: str
) -> None:
    points = axes.scatter(
        [_coordinate(first, outcome.values[first.field]) for outcome in outcomes],
        [_coordinate(second, outcome.values[second.field]) for outcome in outcomes],
        c=[outcome.value for outcome in outcomes], cmap="viridis", s=90, edgecolors="0.3",
    )  # fmt: skip
    _set_axis(axes, "x", first)
    _set_axis(axes, "y", second)
    axes.set_xlabel(first.field)
    axes.set_ylabel(second.field)
    figure.colorbar(points, ax=axes, label=metric)


def _set_axis(axes: Any, which: str, item: Range) -> None:
    """Set scale and ticks of the x or y axis for a field: a tick per choice; few ticks on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if item.kind == "choice":
        ticks = [_coordinate(item, value) for value in item.values]
        getattr(axes, f"set_{which}ticks")(ticks, [format_value(value) for value in item.values])
        getattr(axes, f"set_{which}lim")(min(ticks) - 0.4, max(ticks) + 0.4)
    elif item.logarithmic:
        getattr(axes, f"set_{which}scale")("log")
        axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_value(float(value))))
        axis.set_minor_formatter(NullFormatter())  # minor labels would overlap


def _coordinate(item: Range, value: Any) -> float:
    """Return a value's coordinate on its axis; for a choice, its index."""
    return float(item.values.index(value)) if item.kind == "choice" else float(value)


def _heights(item: Range, outcomes: Sequence[TrialOutcome]) -> list[float]:
    """Return each outcome's height on a field's axis, in [0, 1]."""
    if item.kind == "choice":
        last = max(len(item.values) - 1, 1)
        return [item.values.index(outcome.values[item.field]) / last for outcome in outcomes]
    low, high = item.values
    return _scaled([float(outcome.values[item.field]) for outcome in outcomes], item.logarithmic, (low, high))


def _scaled(values: Sequence[float], logarithmic: bool, ends: tuple[float, float] | None = None) -> list[float]:
    """Return values scaled to [0, 1]; `ends` are the values at 0 and 1, by default the lowest and the highest."""
    if not values:
        return []
    low, high = ends or (min(values), max(values))
    if logarithmic:
        values, low, high = [math.log(value) for value in values], math.log(low), math.log(high)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _label_ends(axes: Any, position: int, item: Range) -> None:
    """Write the choices, or the two ends, at a field's axis in the parallel coordinates."""
    if item.kind == "choice":
        last = max(len(item.values) - 1, 1)
        labels = [(index / last, value) for index, value in enumerate(item.values)]
    else:
        labels = [(0.0, item.values[0]), (1.0, item.values[1])]
    for height, value in labels:
        axes.annotate(
            format_value(value), (position, height), (-6, 0), textcoords="offset points", ha="right", va="center",
            fontsize=9,
        )  # fmt: skip


def _colors(values: Sequence[float]) -> Any:
    """Return a function from a value to its color."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    scale = Normalize(min(values, default=0.0), max(values, default=1.0))
    return lambda value: colormaps["viridis"](scale(value))


def _figure(width: float, height: float, panels: int | None = None) -> tuple[Any, Any]:
    """Return a figure of width × height inches with its axes; with `panels`, a list of axes in one row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot, which keeps global state and needs a display
    if panels is None:
        return figure, figure.subplots()
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
