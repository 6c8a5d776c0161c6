"""`python -m jobs.compare`: compare arms at an equal budget, over several seeds, with paired tests and a report."""

import sys
from collections.abc import Mapping
from typing import Any

from jobs.cli import main
from jobs.pipeline import prepare
from pipelines.comparison.config import CompareConfig
from pipelines.core import storage
from pipelines.core.steps import StepResult


def run(config: CompareConfig) -> StepResult:
    """Run the comparison and print its table of metrics; skip it if it is complete."""
    from pipelines.comparison.run import NUMBERS, compare

    result = compare(config, prepare)
    show(storage.read_json(storage.join(result.path, NUMBERS)), str(result.summary["report"]))
    return result


def show(document: Mapping[str, Any], report: str) -> None:
    """Print the metrics (in percent), the number of seeds and the report's path to stderr.

    With too few seeds for tests, the table has no p-values.
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines.comparison.report import p_value, points

    base = document["baseline"]
    title = f"Seeds {document['seeds']} ({document['evidence']}), in percent, 95 % intervals"
    table = Table("task", "metric", *document["arms"], title=title)
    others = [arm for arm in document["arms"] if arm != base]
    tested = document["tests"] > 0
    for arm in others:
        table.add_column(f"{arm} - {base}")
        if tested:
            table.add_column("p (Holm)")
    for name, group in document["groups"].items():
        cells = [_cell(group["arms"][arm], points) for arm in document["arms"]]
        for arm in others:
            effect = group["effects"][arm]
            cells.append(_cell(effect, lambda value: points(value, signed=True)))
            if tested:
                cells.append(p_value(effect["p_holm"]))
        table.add_row(name, group["primary"], *cells)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    console.print(table)
    if decision := document["champion"]:
        console.print(f"@{decision['alias']}: {decision['candidate']}: {decision['reason']}", highlight=False)
    console.print(f"Report: {report}", soft_wrap=True)


def _cell(estimate: Mapping[str, float], text: Any) -> str:
    return f"{text(estimate['value'])} ({text(estimate['low'])} to {text(estimate['high'])})"


if __name__ == "__main__":
    main("compare", CompareConfig, run)
