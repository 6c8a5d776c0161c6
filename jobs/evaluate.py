"""`python -m jobs.evaluate`: predict on a cluster and compute metrics with confidence intervals."""

import sys
from collections.abc import Mapping
from typing import Any

from jobs.cli import main
from pipelines.core import storage
from pipelines.core.steps import StepResult
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.results import METRICS
from pipelines.evaluation.run import evaluate
from pipelines.inference.decoding import in_words
from pipelines.scoring.estimates import percent


def run(config: EvaluateConfig) -> StepResult:
    """Evaluate and print the metrics; skip the evaluation if it is complete."""
    result = evaluate(config)
    show(storage.read_json(storage.join(result.path, METRICS)))
    return result


def show(document: Mapping[str, Any]) -> None:
    """Print the metrics to stderr as a table, in percent as in papers, with the published values."""
    from rich.console import Console
    from rich.table import Table

    published = document["published"]
    title = f"{document['benchmark']}, {document['rows']} rows, in percent"
    table = Table("task", "metric", "value", "95 % interval", "n", *published, title=title)
    for task, scores in document["tasks"].items():
        for name, number in scores["estimates"].items():
            interval = f"{percent(number['low'])} – {percent(number['high'])}"
            cells = [percent(model[name]) if name in model else "" for model in published.values()]
            table.add_row(task, name, percent(number["value"]), interval, f"{number['n']:,}", *cells)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    console.print(table)
    for task, scores in document["tasks"].items():
        counts = ", ".join(f"{name} {count:,}" for name, count in scores["counts"].items())
        notes = "; ".join(f"{name}: {note}" for name, note in scores["notes"].items())
        console.print(f"{task}: {counts}" + (f" ({notes})" if notes else ""), highlight=False)
    if document["published_rule"]:
        console.print(f"the published numbers are by the rule {document['published_rule']}", highlight=False)
    if document["decoding"]:
        console.print(f"decoded with {in_words(document['decoding'])}", highlight=False)
    if document["counts"]:
        console.print(", ".join(f"{name} {count:,}" for name, count in document["counts"].items()), highlight=False)


if __name__ == "__main__":
    main("evaluate", EvaluateConfig, run)
