"""`python -m jobs.doctor`: what would make a job hang or fail here. Exit code 1 where something would."""

import sys

from jobs.cli import main
from jobs.pipeline import prepare
from pipelines.core.steps import StepResult
from pipelines.operations.doctor.config import DoctorConfig

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}


def run(config: DoctorConfig) -> StepResult:
    """Look at everything and shows it as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pipelines.operations.doctor.run import examine

    findings = list(examine(config, prepare))
    table = Table("", "what", "found", title="Preflight")
    for one in findings:
        table.add_row(_MARKS[one.state], escape(one.about), escape(one.said))
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table)
    counts = {state: sum(one.state == state for one in findings) for state in _MARKS}
    problems = [f"{one.about}: {one.said}" for one in findings if one.state == "problem"]
    summary = {**counts, "problems": problems}
    return StepResult("doctor", config.out, skipped=False, summary=summary, exit_code=1 if problems else 0)


if __name__ == "__main__":
    main("doctor", DoctorConfig, run)
