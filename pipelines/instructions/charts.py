"""Tables and small charts as HTML and SVG that need no script."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.instructions.statistics import GRID


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    numeric = [all(isinstance(row[place], int | float) for row in rows) for place in range(len(columns))]

    def cell(value: Any, number: bool, tag: str) -> str:
        text = f"{value:,}" if isinstance(value, int | float) else str(value)
        return f"<{tag}{' class=n' if number else ''}>{html.escape(text)}</{tag}>"

    head = "".join(cell(name, number, "th") for name, number in zip(columns, numeric, strict=True))
    body = "".join(
        "<tr>" + "".join(cell(value, number, "td") for value, number in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def bars(title: str, counts: Sequence[int], ends: tuple[str, str]) -> str:
    """Return a histogram; the tallest bar says how many it is, every bar when pointed at."""
    width, height, top = 300, 110, 16
    most = max([*counts, 1])
    step = width / len(counts)
    drawn = "".join(
        f'<rect class=bar x="{place * step:.1f}" y="{top + height * (1 - count / most):.1f}" width="{step * 0.88:.1f}" '
        f'height="{height * count / most:.1f}"><title>{count:,}</title></rect>'
        for place, count in enumerate(counts)
    )
    place = counts.index(max(counts))
    anchor = "start" if place * step < width / 2 else "end"
    label = f'<text x="{(place + (anchor == "end")) * step:.1f}" y="11" text-anchor="{anchor}">{max(counts):,}</text>'
    axis = f'<text x="0" y="{top + height + 14}">{html.escape(ends[0])}</text>'
    axis += f'<text x="{width}" y="{top + height + 14}" text-anchor="end">{html.escape(ends[1])}</text>'
    box = f'viewBox="0 0 {width} {top + height + 18}" width="{width}" height="{top + height + 18}"'
    return f"<figure><svg {box}>{drawn}{label}{axis}</svg><figcaption>{html.escape(title)}</figcaption></figure>"


def heat(centers: Mapping[str, int]) -> str:
    """Where centers lie: a grid over the image, darker is more."""
    side = 13
    most = max([*centers.values(), 1])
    cells = "".join(
        f'<rect class=bar x="{column * side}" y="{line * side}" width="{side}" height="{side}" '
        f'opacity="{count / most:.2f}"><title>{count:,}</title></rect>'
        for line in range(GRID)
        for column in range(GRID)
        if (count := centers.get(f"{line},{column}", 0))
    )
    size = GRID * side
    frame = f'<rect width="{size}" height="{size}" fill="none" stroke="currentColor" opacity=".4"/>'
    figure = f'<svg viewBox="-1 -1 {size + 2} {size + 2}" width="{size + 2}" height="{size + 2}">{cells}{frame}</svg>'
    return f"<figure>{figure}<figcaption>centers in the image</figcaption></figure>"
