"""`python -m jobs.doctor`: check whether a job would hang or fail here. Exit code 1 if there is a problem."""

import sys

from jobs.cli import main
from jobs.pipeline import prepare
from pipelines.core.steps import StepResult
from pipelines.operations.doctor.config import DoctorConfig

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}


def run(config: DoctorConfig) -> StepResult:
    """Run all checks and print the findings as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pipelines.operations.doctor.run import examine

    findings = list(examine(config, prepare))
    table = Table("", "check", "finding", title="Preflight")
    for finding in findings:
        table.add_row(_MARKS[finding.state], escape(finding.about), escape(finding.message))
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table)
    counts = {state: sum(finding.state == state for finding in findings) for state in _MARKS}
    problems = [f"{finding.about}: {finding.message}" for finding in findings if finding.state == "problem"]
    summary = {**counts, "problems": problems}
    return StepResult("doctor", config.out, skipped=False, summary=summary, exit_code=1 if problems else 0)


if __name__ == "__main__":
    main("doctor", DoctorConfig, run)
