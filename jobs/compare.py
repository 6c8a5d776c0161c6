"""`python -m jobs.compare`: arms at equal budget, several seeds, paired tests, tag noise, and one report."""

import sys
from collections.abc import Mapping
from typing import Any

from jobs.cli import main
from jobs.pipeline import prepare
from pipelines.comparison.config import CompareConfig
from pipelines.core import storage
from pipelines.core.steps import StepResult


def run(config: CompareConfig) -> StepResult:
    """Run the comparison, or finds it done, and shows its numbers."""
    from pipelines.comparison.run import NUMBERS, compare

    result = compare(config, prepare)
    show(storage.read_json(storage.join(result.path, NUMBERS)), str(result.summary["report"]))
    return result


def show(document: Mapping[str, Any], report: str) -> None:
    """The numbers as a table on stderr, in percent, what they rest on, and where the report lies. Where there are too
    few seeds for tests, there are no p-values."""
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


def _cell(found: Mapping[str, float], written: Any) -> str:
    return f"{written(found['value'])} ({written(found['low'])} to {written(found['high'])})"


if __name__ == "__main__":
    main("compare", CompareConfig, run)
