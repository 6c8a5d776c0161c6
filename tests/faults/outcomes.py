"""What a fault has cost: a disturbed result against an undisturbed one."""

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
    """A row of the table.

    Attributes:
        fault: its name.
        what: what was done, at which point.
        lost: rows (precompute) or samples of steps (training) that the undisturbed run has and this one lacks.
        twice: rows or steps that count twice in the result.
        repeated: shards or steps that were computed again.
        difference: the greatest difference of a step's loss from the undisturbed run's; None where there is no loss.
        seconds: the longest time without progress after the fault, starts of new drivers and nodes included.
        commands: how often the same command was given.
        promises: which of the design's promises were looked at, and whether they hold.
        note: what else there is to say.
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
    """Every row of a precompute result as (image id, all of it but where the picture lies)."""
    found = []
    for table in ("tagged", "quarantine"):
        for file in sorted((folder / table).glob("*.parquet")):
            for row in pq.read_table(file).to_pylist():
                row.pop("uri")
                row.pop("detail", None)
                found.append((row["image_id"], json.dumps([table, row], sort_keys=True)))
    return found


def lost_and_twice(found: Sequence[Any], expected: Sequence[Any]) -> tuple[int, int]:
    """How many of the expected are not among the found, and how many of the found are there more than once."""
    have, want = Counter(found), Counter(expected)
    return (want - have).total(), (have - want).total()


def traced(folder: Path) -> list[dict[str, Any]]:
    """What the workers of a training wrote of each step: a line each, with the worker's `rank`."""
    lines = []
    for file in sorted((folder / "trace").glob("rank-*.jsonl")):
        rank = int(file.stem.removeprefix("rank-"))
        for line in file.read_text().splitlines():
            if line.endswith("}"):  # a killed worker may leave half of one
                lines.append({**json.loads(line), "rank": rank})
    return lines


def in_order(lines: Iterable[Mapping[str, Any]], batches: Mapping[int, list[str]]) -> bool:
    """Whether every worker saw just the samples of its steps that were its turn, however many workers there were."""
    for line in lines:
        batch, world, rank = batches[line["step"]], line["world"], line["rank"]
        if line["ids"] != batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]:
            return False
    return True


def batches_of(lines: Iterable[Mapping[str, Any]]) -> dict[int, list[str]]:
    """The samples of each step of an undisturbed training, in order."""
    found: dict[int, list[str]] = {}
    for line in sorted(lines, key=lambda line: (line["step"], line["rank"])):
        found.setdefault(line["step"], []).extend(line["ids"])
    return found


def losses(folder: Path) -> list[tuple[int, float]]:
    """The loss after each step, as the result's own history has it."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """The SHA-256 of files, by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob(pattern))}


def table(outcomes: Iterable[Outcome]) -> str:
    """The outcomes as Markdown."""
    head = ("fault", "struck", "lost", "twice", "computed again", "loss differs by", "s to recover", "commands",
            "promises", "")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for one in outcomes:
        kept = ", ".join(name if holds else f"**{name} broken**" for name, holds in one.promises.items())
        difference = "–" if one.difference is None else f"{one.difference:.1g}"
        cells = (one.fault, one.what, one.lost, one.twice, one.repeated, difference, f"{one.seconds:.1f}",
                 one.commands, kept, one.note)  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
