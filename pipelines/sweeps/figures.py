"""A sweep's pictures: what each field does to the metric, and how the trials went."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from pipelines.sweeps.outcomes import DEFAULT, Outcome
from pipelines.sweeps.space import Range
from pipelines.sweeps.tuning import shown

_MARKS = {"finished": "o", "stopped early": "v", "failed": "x"}


def draw_parallel(outcomes: Sequence[Outcome], ranges: Sequence[Range], metric: str, best: Outcome) -> bytes:
    """Parallel coordinates as a PNG: an axis for each field and for the metric, a line for each trial."""
    shown_ones = _drawable(outcomes, ranges)
    figure, axes = _figure(1.9 * (len(ranges) + 1) + 2.4, 4.6)
    places = [_places(found, shown_ones) for found in ranges]
    values = [float(one.value or 0.0) for one in shown_ones]
    heights = _scaled(values, False)
    color = _colors(values)
    for row, one in enumerate(shown_ones):
        line = [*(place[row] for place in places), heights[row]]
        chosen = one is best
        axes.plot(
            range(len(line)), line, color=color(one.value), alpha=1.0 if chosen else 0.7,
            linewidth=3.2 if chosen else 1.3, linestyle="-" if one.state == "finished" else ":",
            marker=_MARKS[one.state], markersize=5, zorder=3 if chosen else 2,
        )  # fmt: skip
    for at, found in enumerate(ranges):
        _label(axes, at, found, shown_ones)
    for height, value in {round(height, 3): value for height, value in zip(heights, values, strict=True)}.items():
        if height in (0.0, 1.0):
            axes.annotate(shown(value), (len(ranges), height), (8, 0), textcoords="offset points", va="center")
    axes.set_xticks(range(len(ranges) + 1), [*(found.field for found in ranges), metric])
    axes.set_yticks([])
    axes.set_xlim(-0.35, len(ranges) + 0.4)
    axes.set_ylim(-0.1, 1.1)
    for at in range(len(ranges) + 1):
        axes.axvline(at, color="0.6", linewidth=0.8, zorder=1)
    axes.set_title(f"each trial's way to its {metric}; thick: the best, dotted: stopped early")
    return _png(figure)


def draw_response(
    outcomes: Sequence[Outcome], ranges: Sequence[Range], metric: str, default: Outcome, best: Outcome
) -> bytes:
    """Return the metric over each field as a PNG, a panel each; and over two of them together, where there are two."""
    pair = len(ranges) > 1
    figure, panels = _figure(4.2 * (len(ranges) + pair), 4.0, len(ranges) + pair)
    shown_ones = _drawable(outcomes, ranges)
    for axes, found in zip(panels, ranges, strict=False):
        for state, mark in _MARKS.items():
            some = [one for one in shown_ones if one.state == state]
            axes.scatter(
                [_number(found, one.values[found.field]) for one in some], [one.value for one in some],
                marker=mark, label=state if some else None, alpha=0.8,
            )  # fmt: skip
        if default.value is not None:
            axes.axhline(default.value, color="0.4", linewidth=1, linestyle="--", label="as configured")
        if best in shown_ones:
            axes.scatter(
                [_number(found, best.values[found.field])], [best.value], marker="*", s=170, color="tab:red",
                label="best", zorder=3,
            )  # fmt: skip
        _axis(axes, "x", found)
        axes.set_xlabel(found.field)
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    if pair:
        first, second, *_ = sorted(ranges, key=lambda found: found.kind == "choice")  # two numbers, where there are two
        _plane(figure, panels[-1], shown_ones, first, second, metric)
    return _png(figure)


def draw_progress(outcomes: Sequence[Outcome], metric: str, best: Outcome) -> bytes:
    """Return the metric over the part of the training that each trial has had, as a PNG: where early stopping cut."""
    figure, axes = _figure(8.0, 4.6)
    for one in outcomes:
        if one.history:
            at, values = zip(*one.history, strict=True)
            chosen = one.name == best.name
            label = "as configured" if one.name == DEFAULT else f"trial {one.name}"
            axes.plot(
                at, values, marker=".", linewidth=2.8 if chosen else 1.1, alpha=1.0 if chosen else 0.7,
                color="tab:red" if chosen else None, label=label,
            )  # fmt: skip
            if one.state == "stopped early":
                axes.plot(at[-1], values[-1], marker="v", color="0.3", markersize=8)
    axes.set_xlabel("percent of the training")
    axes.set_ylabel(metric)
    axes.set_title("triangles: stopped early")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize="x-small", ncols=2)
    return _png(figure)


def _drawable(outcomes: Sequence[Outcome], ranges: Sequence[Range]) -> list[Outcome]:
    """Those that have a value, and a place on every axis: the configuration as it stands may lie outside a range."""
    placed = [one for one in outcomes if all(_has_place(found, one.values[found.field]) for found in ranges)]
    return [one for one in placed if one.value is not None]


def _has_place(found: Range, value: Any) -> bool:
    if found.kind == "choice":
        return value in found.values
    return value is not None and bool(found.values[0] <= value <= found.values[1])


def _plane(figure: Any, axes: Any, outcomes: Sequence[Outcome], first: Range, second: Range, metric: str) -> None:
    found = axes.scatter(
        [_number(first, one.values[first.field]) for one in outcomes],
        [_number(second, one.values[second.field]) for one in outcomes],
        c=[one.value for one in outcomes], cmap="viridis", s=90, edgecolors="0.3",
    )  # fmt: skip
    _axis(axes, "x", first)
    _axis(axes, "y", second)
    axes.set_xlabel(first.field)
    axes.set_ylabel(second.field)
    figure.colorbar(found, ax=axes, label=metric)


def _axis(axes: Any, which: str, found: Range) -> None:
    """Lay a field on the x or the y axis: choices in a row, logarithms with few numbers, which would overlap."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if found.kind == "choice":
        places = [_number(found, value) for value in found.values]
        getattr(axes, f"set_{which}ticks")(places, [shown(value) for value in found.values])
        getattr(axes, f"set_{which}lim")(min(places) - 0.4, max(places) + 0.4)
    elif found.logarithmic:
        getattr(axes, f"set_{which}scale")("log")
        axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: shown(float(value))))
        axis.set_minor_formatter(NullFormatter())


def _number(found: Range, value: Any) -> float:
    """Where a value stands on its axis: choices in a row, in their order."""
    return float(found.values.index(value)) if found.kind == "choice" else float(value)


def _places(found: Range, outcomes: Sequence[Outcome]) -> list[float]:
    if found.kind == "choice":
        last = max(len(found.values) - 1, 1)
        return [found.values.index(one.values[found.field]) / last for one in outcomes]
    low, high = found.values
    return _scaled([float(one.values[found.field]) for one in outcomes], found.logarithmic, (low, high))


def _scaled(values: Sequence[float], logarithmic: bool, ends: tuple[float, float] | None = None) -> list[float]:
    """Values between 0 and 1."""
    if not values:
        return []
    low, high = ends or (min(values), max(values))
    if logarithmic:
        values, low, high = [math.log(value) for value in values], math.log(low), math.log(high)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _label(axes: Any, at: int, found: Range, outcomes: Sequence[Outcome]) -> None:
    if found.kind == "choice":
        last = max(len(found.values) - 1, 1)
        ends = [(place / last, value) for place, value in enumerate(found.values)]
    else:
        ends = [(0.0, found.values[0]), (1.0, found.values[1])]
    for height, value in ends:
        axes.annotate(
            shown(value), (at, height), (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=9
        )


def _colors(values: Sequence[float]) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    scale = Normalize(min(values, default=0.0), max(values, default=1.0))
    return lambda value: colormaps["viridis"](scale(value))


def _figure(width: float, height: float, panels: int | None = None) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if panels is None:
        return figure, figure.subplots()
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _png(figure: Any) -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
