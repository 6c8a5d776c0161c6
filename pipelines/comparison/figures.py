"""Figures of the report as SVG. They use the text color of the page, so they are readable in light and dark mode."""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

# Readable on white and on near-black. Markers and dashes keep the arms apart in a print without color.
COLORS = ("#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#b08900", "#0c8599")
_MARKERS = "osD^vP"
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_INK = "#123456"  # placeholder that `_svg` replaces by the page's text color


def noise_curves(groups: Mapping[str, Any], arms: Sequence[str], heading: str = "") -> str:
    """Draw the primary metric of each group over the strength of tag noise, one line per arm, with 95 % intervals.

    Args:
        groups: the groups of the comparison's document.
        arms: names of the arms.
        heading: title above the figure, such as the number of seeds, for a reader who sees the figure without the page.

    Returns:
        An `<svg>` element.
    """
    figure, panels = _panels(len(groups), columns=2)
    _set_heading(figure, heading)
    for axes, (name, group) in zip(panels, groups.items(), strict=True):
        strengths = [level["strength"] for level in group["noise"]]
        nudge = 0.012 * max(strengths)  # bars next to each other, not on top of each other
        for index, arm in enumerate(arms):
            estimates = [level["arms"][arm] for level in group["noise"]]
            x = [strength + nudge * (index - (len(arms) - 1) / 2) for strength in strengths]
            y = [100 * estimate["value"] for estimate in estimates]
            reach = [
                [100 * (estimate["value"] - estimate["low"]) for estimate in estimates],
                [100 * (estimate["high"] - estimate["value"]) for estimate in estimates],
            ]
            axes.errorbar(x, y, yerr=reach, label=arm, capsize=3, linewidth=1.6, markersize=5, **_look(index))
        axes.set_title(f"{name}: {group['primary']}", fontsize=11)
        axes.set_xlabel("strength of tag noise")
        axes.set_ylabel("percent")
        axes.set_xticks(strengths)
    _legend(figure, panels[0])
    return _svg(figure, "noise")


def effects(groups: Mapping[str, Any], arms: Sequence[str], baseline: str, heading: str = "") -> str:
    """Draw the difference of each challenger from the baseline in each group, with its 95 % interval.

    Args:
        groups: the groups of the comparison's document.
        arms: names of the arms.
        baseline: name of the baseline arm.
        heading: title above the figure, as in `noise_curves`.

    Returns:
        An `<svg>` element.
    """
    from matplotlib.figure import Figure

    challengers = [arm for arm in arms if arm != baseline]
    height = 0.7 + 0.42 * len(groups) * len(challengers) + (0.3 if heading else 0.0)
    figure = Figure(figsize=(8.6, height), layout="constrained")
    _set_heading(figure, heading)
    axes = figure.subplots()
    labels = []
    for row, (name, arm) in enumerate([(name, arm) for name in groups for arm in challengers]):
        effect = groups[name]["effects"][arm]
        reach = [[100 * (effect["value"] - effect["low"])], [100 * (effect["high"] - effect["value"])]]
        style = {**_look(arms.index(arm)), "linestyle": "none"}
        axes.errorbar([100 * effect["value"]], [row], xerr=reach, capsize=4, markersize=6, linewidth=1.6, **style)
        labels.append(f"{name} ({groups[name]['primary']}): {arm}")
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(y=0.6 / max(len(labels), 1))
    axes.set_xlabel(f"difference from {baseline}, in percentage points")
    _apply_page_style(axes)
    return _svg(figure, "effects")


def tag_encoder_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Draw the training of a tag encoder: loss and cosine similarities over steps.

    The cosines are those of an image's tags to its own caption and to another image's caption. Dotted lines mark the
    published values.

    Args:
        history: records of `metrics.jsonl`.

    Returns:
        An `<svg>` element.
    """
    figure, (loss, cosine) = _panels(2, columns=2)
    train = [record for record in history if record["kind"] == "train"]
    validation = [record for record in history if record["kind"] == "validation"]
    _line(loss, train, "loss", "training", 0, marker=None)
    _line(loss, validation, "loss", "validation", 1)
    loss.set_title("triplet margin loss", fontsize=11)
    loss.set_ylim(bottom=0)
    _line(cosine, validation, "cosine_positive", "to the caption of the same image", 0)
    _line(cosine, validation, "cosine_negative", "to the caption of another image", 1)
    for value, text in ((0.8, "published: same image, near 0.8"), (0.2, "published: another image, below 0.2")):
        cosine.axhline(value, color=_INK, linewidth=0.8, linestyle=":")
        cosine.annotate(
            text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=_INK
        )
    cosine.set_title("cosine similarity of the tags, validation", fontsize=11)
    cosine.set_ylim(min(0.0, *cosine.get_ylim()), 1.4)  # no line is above 1, so that space is free for the legend
    for axes in (loss, cosine):
        axes.set_xlabel("step")
        axes.legend(fontsize=9, labelcolor=_INK, frameon=False, loc="upper right")
    return _svg(figure, "tag-encoder")


def training_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Draw the training and validation loss of the last stage, one line per arm and seed.

    Args:
        histories: records of `metrics.jsonl`, by arm and then by seed.

    Returns:
        An `<svg>` element.
    """
    figure, panels = _panels(2, columns=2)
    for axes, kind, title in zip(panels, ("train", "validation"), ("training", "validation"), strict=True):
        for index, (arm, by_seed) in enumerate(histories.items()):
            for seed_index, history in enumerate(by_seed):
                records = [record for record in history if record["kind"] == kind]
                label = arm if seed_index == 0 else None  # one entry of the legend per arm
                _line(axes, records, "loss", label, index, marker=None, alpha=0.8)
        axes.set_title(f"{title} loss", fontsize=11)
        axes.set_xlabel("step")
    _legend(figure, panels[0])
    return _svg(figure, "training")


def _panels(count: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in grid[count:]:  # the last row may have more cells than panels
        unused.set_axis_off()
    for axes in grid[:count]:
        _apply_page_style(axes)
    return figure, grid[:count]


def _set_heading(figure: Any, heading: str) -> None:
    if heading:
        figure.suptitle(heading, fontsize=11, color=_INK)


def _apply_page_style(axes: Any) -> None:
    """Draw everything except the data in the page's text color, on a transparent background."""
    axes.set_facecolor("none")
    axes.grid(color=_INK, alpha=0.18, linewidth=0.7)
    axes.tick_params(colors=_INK)
    for side in axes.spines.values():
        side.set_edgecolor(_INK)
        side.set_alpha(0.5)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_INK)


def _look(index: int) -> dict[str, Any]:
    """Return color, marker and dashes of the line with this index."""
    index %= len(COLORS)
    return {"color": COLORS[index], "marker": _MARKERS[index], "linestyle": _DASHES[index]}


def _line(
    axes: Any, records: Sequence[Mapping[str, Any]], name: str, label: str | None, index: int, **look: Any
) -> None:
    """Draw the field `name` of the records over steps; records without it are skipped."""
    points = [(record["step"], record[name]) for record in records if name in record]
    if points:
        style = {**_look(index), "markersize": 4, "linewidth": 1.4, **look}
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _legend(figure: Any, axes: Any) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, labelcolor=_INK, frameon=False
    )


def _svg(figure: Any, name: str) -> str:
    """Return the figure as an `<svg>` element for an HTML page.

    Its ids begin with `name`, because ids must be unique in a page with several figures.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)  # attaches the canvas to the figure; `savefig` needs one
    figure.patch.set_alpha(0)
    sink = BytesIO()
    # A fixed hash salt and no date: the same numbers give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue().decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', text, count=1)
