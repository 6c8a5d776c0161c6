"""Figures of the report as SVG that takes the page's own text color, so that it reads on light and dark alike."""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

# Readable on white and on near-black, and told apart by marker and dash where there is no color.
COLORS = ("#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#b08900", "#0c8599")
_MARKERS = "osD^vP"
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_INK = "#123456"  # stands for the page's text color until the picture is written


def noise_curves(groups: Mapping[str, Any], arms: Sequence[str], heading: str = "") -> str:
    """Each group's primary number over the strength of tag noise, a line for each arm, with 95 % intervals. The heading
    is what the curves rest on, for a reader who sees the figure without the page."""
    figure, panels = _panels(len(groups), columns=2)
    _head(figure, heading)
    for axes, (name, group) in zip(panels, groups.items(), strict=True):
        strengths = [level["strength"] for level in group["noise"]]
        nudge = 0.012 * max(strengths)  # bars beside each other, not over each other
        for place, arm in enumerate(arms):
            found = [level["arms"][arm] for level in group["noise"]]
            at = [strength + nudge * (place - (len(arms) - 1) / 2) for strength in strengths]
            reach = [
                [100 * (one["value"] - one["low"]) for one in found],
                [100 * (one["high"] - one["value"]) for one in found],
            ]
            axes.errorbar(
                at, [100 * one["value"] for one in found], yerr=reach, label=arm, capsize=3, linewidth=1.6,
                markersize=5, **_look(place),
            )  # fmt: skip
        axes.set_title(f"{name}: {group['primary']}", fontsize=11)
        axes.set_xlabel("strength of tag noise")
        axes.set_ylabel("percent")
        axes.set_xticks(strengths)
    _legend(figure, panels[0])
    return _svg(figure, "noise")


def effects(groups: Mapping[str, Any], arms: Sequence[str], baseline: str, heading: str = "") -> str:
    """Return each other arm's difference from the baseline in each group, with its 95 % interval. The heading as in
    `noise_curves`."""
    from matplotlib.figure import Figure

    challengers = [arm for arm in arms if arm != baseline]
    height = 0.7 + 0.42 * len(groups) * len(challengers) + (0.3 if heading else 0.0)
    figure = Figure(figsize=(8.6, height), layout="constrained")
    _head(figure, heading)
    axes = figure.subplots()
    labels = []
    for row, (name, arm) in enumerate([(name, arm) for name in groups for arm in challengers]):
        found = groups[name]["effects"][arm]
        ends = [[100 * (found["value"] - found["low"])], [100 * (found["high"] - found["value"])]]
        look = {**_look(arms.index(arm)), "linestyle": "none"}
        axes.errorbar([100 * found["value"]], [row], xerr=ends, capsize=4, markersize=6, linewidth=1.6, **look)
        labels.append(f"{name} ({groups[name]['primary']}): {arm}")
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(y=0.6 / max(len(labels), 1))
    axes.set_xlabel(f"difference from {baseline}, in points")
    _inked(axes)
    return _svg(figure, "effects")


def tag_encoder_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss, and cosines of the tags to their own and to another image's caption, over steps; the published values as
    thin lines."""
    figure, (loss, cosine) = _panels(2, columns=2)
    train = [record for record in history if record["kind"] == "train"]
    validation = [record for record in history if record["kind"] == "validation"]
    _line(loss, train, "loss", "training", 0, marker=None)
    _line(loss, validation, "loss", "validation", 1)
    loss.set_title("triplet margin loss", fontsize=11)
    loss.set_ylim(bottom=0)
    _line(cosine, validation, "cosine_positive", "to the own caption", 0)
    _line(cosine, validation, "cosine_negative", "to another image's caption", 1)
    for value, text in ((0.8, "published: positive near 0.8"), (0.2, "published: negative under 0.2")):
        cosine.axhline(value, color=_INK, linewidth=0.8, linestyle=":")
        cosine.annotate(
            text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=_INK
        )
    cosine.set_title("cosine similarity of the tags, validation", fontsize=11)
    cosine.set_ylim(min(0.0, *cosine.get_ylim()), 1.4)  # above 1 there is room for the legend, and no line
    for axes in (loss, cosine):
        axes.set_xlabel("step")
        axes.legend(fontsize=9, labelcolor=_INK, frameon=False, loc="upper right")
    return _svg(figure, "tag-encoder")


def training_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Training and validation loss of the last stage, a line for each seed of each arm."""
    figure, panels = _panels(2, columns=2)
    for axes, kind, title in zip(panels, ("train", "validation"), ("training", "validation"), strict=True):
        for place, (arm, by_seed) in enumerate(histories.items()):
            for number, history in enumerate(by_seed):
                records = [record for record in history if record["kind"] == kind]
                _line(axes, records, "loss", arm if number == 0 else None, place, marker=None, alpha=0.8)
        axes.set_title(f"{title} loss", fontsize=11)
        axes.set_xlabel("step")
    _legend(figure, panels[0])
    return _svg(figure, "training")


def _panels(count: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in grid[count:]:
        unused.set_axis_off()
    for axes in grid[:count]:
        _inked(axes)
    return figure, grid[:count]


def _head(figure: Any, heading: str) -> None:
    if heading:
        figure.suptitle(heading, fontsize=11, color=_INK)


def _inked(axes: Any) -> None:
    """Everything but the data in the page's text color, on no ground."""
    axes.set_facecolor("none")
    axes.grid(color=_INK, alpha=0.18, linewidth=0.7)
    axes.tick_params(colors=_INK)
    for side in axes.spines.values():
        side.set_edgecolor(_INK)
        side.set_alpha(0.5)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_INK)


def _look(place: int) -> dict[str, Any]:
    turn = place % len(COLORS)
    return {"color": COLORS[turn], "marker": _MARKERS[turn], "linestyle": _DASHES[turn]}


def _line(
    axes: Any, records: Sequence[Mapping[str, Any]], name: str, label: str | None, place: int, **look: Any
) -> None:
    found = [(record["step"], record[name]) for record in records if name in record]
    if found:
        style = {**_look(place), "markersize": 4, "linewidth": 1.4, **look}
        axes.plot(*zip(*found, strict=True), label=label, **style)


def _legend(figure: Any, axes: Any) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, labelcolor=_INK, frameon=False
    )


def _svg(figure: Any, name: str) -> str:
    """Return the figure as an `<svg>` to stand in a page. Ids bear the name: several figures share one page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    sink = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue().decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', text, count=1)
