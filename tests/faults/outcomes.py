"""The cost of a fault: the result of a disturbed run compared with that of an undisturbed one."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one fault, a row of the table.

    Attributes:
        fault: name of the fault.
        what: the harm that was done, and the point at which.
        lost: rows (precompute) or steps (training) that the undisturbed run has and this one lacks.
        twice: rows or steps that are in the result twice.
        repeated: shards or steps that were computed again.
        difference: largest difference of a step's loss from the undisturbed run; None where there is no loss.
        seconds: longest time without progress after the fault, including the start of new drivers and nodes.
        commands: number of times that the command was run.
        promises: the promises of the design that were checked, and whether they hold.
        note: a remark.
    """

    fault: str
    what: str
    lost: int
    twice: int
    repeated: int
    difference: float | None
    seconds: float
    commands: int
    promises: Mapping[str, bool]
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing was lost, nothing is there twice, and all promises hold."""
        return not self.lost and not self.twice and all(self.promises.values())


def rows(folder: Path) -> list[tuple[str, str]]:
    """Return every row of a precompute result as (image id, JSON of the row without the image's path)."""
    result = []
    for table in ("tagged", "quarantine"):
        for file in sorted((folder / table).glob("*.parquet")):
            for row in pq.read_table(file).to_pylist():
                row.pop("uri")
                row.pop("detail", None)
                result.append((row["image_id"], json.dumps([table, row], sort_keys=True)))
    return result


def lost_and_twice(result: Sequence[Any], expected: Sequence[Any]) -> tuple[int, int]:
    """Return the number of expected items that the result lacks, and of items that it has too often."""
    counts, expected_counts = Counter(result), Counter(expected)
    return (expected_counts - counts).total(), (counts - expected_counts).total()


def traced(folder: Path) -> list[dict[str, Any]]:
    """Return the trace of a training: a record per step and worker, with the worker's `rank`."""
    lines = []
    for file in sorted((folder / "trace").glob("rank-*.jsonl")):
        rank = int(file.stem.removeprefix("rank-"))
        for line in file.read_text().splitlines():
            if line.endswith("}"):  # a killed worker may leave half a line
                lines.append({**json.loads(line), "rank": rank})
    return lines


def in_order(lines: Iterable[Mapping[str, Any]], batches: Mapping[int, list[str]]) -> bool:
    """Return whether every worker read its share of each batch, for any number of workers.

    Args:
        lines: the trace of the disturbed training.
        batches: the sample ids of each step, from the undisturbed training.
    """
    for line in lines:
        batch, world, rank = batches[line["step"]], line["world"], line["rank"]
        if line["ids"] != batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]:
            return False
    return True


def batches_of(lines: Iterable[Mapping[str, Any]]) -> dict[int, list[str]]:
    """Return the sample ids of each step of an undisturbed training, in order."""
    batches: dict[int, list[str]] = {}
    for line in sorted(lines, key=lambda line: (line["step"], line["rank"])):
        batches.setdefault(line["step"], []).extend(line["ids"])
    return batches


def losses(folder: Path) -> list[tuple[int, float]]:
    """Return (step, loss) of a training, from the history in its result."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Return the SHA-256 of the files that match a pattern, by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob(pattern))}


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    head = ("fault", "struck", "lost", "twice", "computed again", "loss differs by", "s to recover", "commands",
            "promises", "")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for outcome in outcomes:
        kept = ", ".join(name if holds else f"**{name} broken**" for name, holds in outcome.promises.items())
        difference = "–" if outcome.difference is None else f"{outcome.difference:.1g}"
        cells = (outcome.fault, outcome.what, outcome.lost, outcome.twice, outcome.repeated, difference,
                 f"{outcome.seconds:.1f}", outcome.commands, kept, outcome.note)  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
