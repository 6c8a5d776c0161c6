"""Tables and small charts of the data card: their numbers and geometry. `card.html.j2` draws them as HTML and SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.instructions.statistics import GRID

_WIDTH, _HEIGHT, _TOP = 300, 110, 16  # of a histogram, in SVG units; the label of the tallest bar is above the bars
_CELL = 13  # side of a cell of the heat map
_GAP = 0.88  # share of a bar's step that the bar fills


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers.

    Attributes:
        columns: the headings.
        rows: as many values per row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has only numbers, which are aligned to the right."""
        return [all(isinstance(row[n], int | float) for row in self.rows) for n in range(len(self.columns))]


@dataclass(frozen=True)
class Rectangle:
    """A bar of a histogram, or a cell of a heat map.

    Attributes:
        x, y, width, height: position and size in SVG units.
        count: the number that it stands for.
        opacity: from 0 to 1.
    """

    x: float
    y: float
    width: float
    height: float
    count: int
    opacity: float = 1.0


@dataclass(frozen=True)
class Histogram:
    """Counts as bars; the tallest bar has a label, and every bar a tooltip.

    Attributes:
        title: the text below the bars.
        counts: the count of each bar.
        ends: the labels of the axis, at its left and right end.
    """

    title: str
    counts: Sequence[int]
    ends: tuple[str, str]

    width = _WIDTH
    height = _TOP + _HEIGHT + 18
    """Height with the axis labels."""
    axis = _TOP + _HEIGHT + 14
    """Height of the base line of the axis labels."""

    @property
    def bars(self) -> list[Rectangle]:
        """The bars."""
        step, most = self._step, max([*self.counts, 1])
        return [
            Rectangle(n * step, _TOP + _HEIGHT * (1 - count / most), step * _GAP, _HEIGHT * count / most, count)
            for n, count in enumerate(self.counts)
        ]

    @property
    def label(self) -> tuple[float, str, int]:
        """The label of the tallest bar: x, the SVG text anchor that keeps it inside the chart, and the count."""
        tallest = self.counts.index(max(self.counts))
        anchor = "start" if tallest * self._step < _WIDTH / 2 else "end"
        return (tallest + (anchor == "end")) * self._step, anchor, self.counts[tallest]

    @property
    def _step(self) -> float:
        return _WIDTH / len(self.counts)


@dataclass(frozen=True)
class HeatMap:
    """Counts on a grid over the image; a darker cell has more.

    Attributes:
        title: the text below the grid.
        counts: the count of each cell, by "line,column".
    """

    title: str
    counts: Mapping[str, int]

    side = GRID * _CELL

    @property
    def cells(self) -> list[Rectangle]:
        """The cells with a count."""
        most = max([*self.counts.values(), 1])
        return [
            Rectangle(column * _CELL, line * _CELL, _CELL, _CELL, count, opacity=count / most)
            for line in range(GRID)
            for column in range(GRID)
            if (count := self.counts.get(f"{line},{column}", 0))
        ]
