"""The table of all figures in Markdown and JSON, and its comparison with the floors."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.figures import Figure
from tests.benchmarks.runner import Outcome

FLOORS = Path(__file__).with_name("floors.yaml")


def read_floors(path: Path = FLOORS) -> dict[str, float]:
    """Return the lowest accepted ratio of each figure, by `BENCHMARK.FIGURE`."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        f"{benchmark}.{name}": float(floor) for benchmark, floors in document.items() for name, floor in floors.items()
    }


def failures(outcomes: Sequence[Outcome], floors: Mapping[str, float]) -> list[str]:
    """Return a message for each figure below its floor or without a floor, and for each failed benchmark.

    A figure fails if neither the median of its rounds nor the best rounds reach the floor: other processes on the
    machine slow some rounds, a slower program slows all.
    """
    messages = []
    for outcome in outcomes:
        if outcome.failure:
            messages.append(f"The benchmark {outcome.name} failed: {outcome.failure.splitlines()[-1]}")
        for figure in outcome.figures:
            name = f"{outcome.name}.{figure.name}"
            if name not in floors:
                messages.append(f"{name} has no floor; add one to {FLOORS.name}.")
            elif max(figure.ratio, figure.best) < floors[name]:
                messages.append(
                    f"{name} is {figure.ratio:.2f} (best rounds {figure.best:.2f}), below its floor of "
                    f"{floors[name]:g}: {figure.what} against {figure.against}."
                )
    return messages


def markdown(facts: Mapping[str, Any], outcomes: Sequence[Outcome], floors: Mapping[str, float]) -> str:
    """Return the table in Markdown, after a description of the machine."""
    gpus = ", ".join(facts["gpus"]) or "no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    load = " ".join(f"{value:.1f}" for value in facts["load_average"])
    lines = [
        f"{facts['processor']} ({facts['vector_instructions']}), {facts['cores']} cores, {facts['memory_gib']} GiB, "
        f"{gpus}; load average {load} at the start; {facts['started']}; commit {facts['commit']}; {versions}.",
        "",
        "Above 1, this project is better. Ratio: median of the rounds (minimum to maximum); best: ratio of the best",
        "rounds. Both variants were measured alternately in the same process or run.",
        "",
        "| figure | ours | other | ratio | best | goal | floor | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        lines += [_row(outcome.name, figure, floors) for figure in outcome.figures]
    notes = [
        f"- `{outcome.name}.{figure.name}`: {figure.note}"
        for outcome in outcomes
        for figure in outcome.figures
        if figure.note
    ]
    notes += [
        f"- `{outcome.name}.{row.name}` not measured: {row.why}" for outcome in outcomes for row in outcome.left_out
    ]
    notes += [
        f"- `{outcome.name}` FAILED: {outcome.failure.splitlines()[-1]}" for outcome in outcomes if outcome.failure
    ]
    took = ", ".join(
        f"{item.name} {item.seconds:.0f} s (load {item.load[0]:.1f} to {item.load[1]:.1f})" for item in outcomes
    )
    return "\n".join([*lines, "", *notes, "", f"Took {sum(item.seconds for item in outcomes):.0f} s: {took}.", ""])


def _row(benchmark: str, figure: Figure, floors: Mapping[str, float]) -> str:
    name = f"{benchmark}.{figure.name}"
    spread = f"{figure.ratio:.2f} ({min(figure.ratios):.2f} to {max(figure.ratios):.2f})"
    goal = "" if figure.goal is None else f"{figure.goal:g}"
    cells = (
        f"`{name}`",
        f"{figure.what}: {_median(figure.ours)} {figure.unit}",
        f"{figure.against}: {_median(figure.other)}",
        spread,
        f"{figure.best:.2f}",
        goal,
        f"{floors[name]:g}" if name in floors else "",
        f"{figure.clock}, {len(figure.ours)} rounds" if len(figure.ours) > 1 else f"{figure.clock}, once",
    )
    return f"| {' | '.join(cells)} |"


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.4g}"


def write(folder: Path, facts: Mapping[str, Any], outcomes: Sequence[Outcome], floors: Mapping[str, float]) -> None:
    """Write `table.md` and `table.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"facts": facts, "outcomes": [outcome.as_dict() for outcome in outcomes]}
    (folder / "table.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "table.md").write_text(markdown(facts, outcomes, floors), encoding="utf-8")


def read(path: Path) -> list[Outcome]:
    """Return the results in a `table.json`."""
    return [Outcome.from_dict(document) for document in json.loads(path.read_text(encoding="utf-8"))["outcomes"]]
