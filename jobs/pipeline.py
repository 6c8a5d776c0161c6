"""`python -m jobs.pipeline`: run the steps of a pipeline in order; by default the main job on the sample world."""

import importlib
import importlib.util
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.cli import from_values, main
from pipelines.core.errors import UserError
from pipelines.core.steps import StepResult
from pipelines.core.storage import read_json
from pipelines.core.workflow import Runner
from pipelines.operations.pipeline import PipelineConfig, result_texts, run_pipeline

DEMO = Path(__file__).with_name("pipeline.yaml")


def prepare(verb: str, values: Mapping[str, Any], *, absolute: bool = True) -> tuple[Any, Runner]:
    """Return the typed configuration of a verb and its `run` function; `absolute` as in `cli.parse`.

    Raises:
        UserError: the verb does not exist, or a value does not fit its configuration.
    """
    if verb == "pipeline" or not verb.isidentifier() or not importlib.util.find_spec(f"jobs.{verb}"):
        verbs = sorted(path.stem for path in DEMO.parent.glob("*.yaml") if path.stem != "pipeline")
        raise UserError(f"There is no verb {verb!r} for a step; use one of {verbs}.")
    runner = importlib.import_module(f"jobs.{verb}").run
    config_type = typing.get_type_hints(runner)["config"]
    try:
        return from_values(verb, config_type, values, absolute=absolute), runner
    except UserError as error:
        raise UserError(f"The configuration of {verb}: {error}") from error


def run(config: PipelineConfig) -> StepResult:
    """Run the pipeline and print a table of its steps."""
    result = run_pipeline(config, prepare)
    show(read_json(f"{result.path}/report.json")["steps"], str(result.summary["report"]))
    return result


def show(outcomes: list[dict[str, Any]], report: str) -> None:
    """Print the result of each step and the report's path to stderr."""
    table = Table("step", "seconds", "result", title="Steps and their results")
    for outcome in outcomes:
        result = "  ".join(result_texts(outcome))
        table.add_row(outcome["name"], "skipped" if outcome["skipped"] else f"{outcome['seconds']:.1f}", result)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    console.print(table)
    for outcome in outcomes:
        if "report" in outcome:
            console.print(f"Report of {outcome['name']}: {outcome['report']}", soft_wrap=True, highlight=False)
    console.print(f"Report: {report}", soft_wrap=True)


if __name__ == "__main__":
    main("pipeline", PipelineConfig, run, default_file=DEMO)
