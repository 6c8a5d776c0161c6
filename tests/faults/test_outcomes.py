"""The outcomes of fault injection count rows that are lost or doubled, samples in a wrong order, and time without
progress."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq

from pipelines.core.tables import TAGGED, to_table
from tests.faults.drivers import Driver, seconds_to_recover
from tests.faults.outcomes import Outcome, batches_of, in_order, lost_and_twice, rows, table, traced


def write_rows(folder: Path, *ids: str) -> Path:
    """Write a precompute result with these image ids and return its folder."""
    (folder / "tagged").mkdir(parents=True)
    records = [
        {"image_id": name, "uri": f"{folder}/{name}", "source": "drawn", "tags": [{"tag": "dog", "score": 0.5}]}
        for name in ids
    ]
    pq.write_table(to_table(records, TAGGED), folder / "tagged/part-00000000.parquet")
    return folder


def write_trace(folder: Path, world: int, steps: list[list[str]]) -> list[dict[str, Any]]:
    """Write the trace of `world` workers and return it as `traced` reads it."""
    (folder / "trace").mkdir(parents=True)
    for rank in range(world):
        with open(folder / "trace" / f"rank-{rank}.jsonl", "w") as stream:
            for step, ids in enumerate(steps):
                own = ids[len(ids) * rank // world : len(ids) * (rank + 1) // world]
                stream.write(json.dumps({"step": step, "loss": 1.0, "ids": own, "world": world, "pid": 1}) + "\n")
            stream.write('{"step": 9, "lo')  # half a line, as a killed worker leaves it
    return traced(folder)


def test_lost_and_doubled_rows_are_counted(tmp_path: Path) -> None:
    whole = rows(write_rows(tmp_path / "whole", "a", "b", "c"))
    assert lost_and_twice(rows(write_rows(tmp_path / "same", "a", "b", "c")), whole) == (0, 0)
    assert lost_and_twice(rows(write_rows(tmp_path / "lost", "a", "c")), whole) == (1, 0)
    assert lost_and_twice(rows(write_rows(tmp_path / "twice", "a", "b", "b", "c")), whole) == (0, 1)


def test_a_wrong_order_of_samples_is_detected_for_any_number_of_workers(tmp_path: Path) -> None:
    steps = [["a", "b", "c"], ["d", "e", "f"]]
    batches = batches_of(write_trace(tmp_path / "two", 2, steps))
    assert batches == {0: ["a", "b", "c"], 1: ["d", "e", "f"]}
    assert in_order(write_trace(tmp_path / "one", 1, steps), batches)
    assert in_order(traced(tmp_path / "two"), batches)
    assert not in_order(write_trace(tmp_path / "other", 1, [["a", "c", "b"], ["d", "e", "f"]]), batches)


def test_recovery_is_the_longest_time_without_new_progress() -> None:
    first = SimpleNamespace(grown=[(0.0, 0), (1.0, 1), (2.0, 2)])
    again = SimpleNamespace(grown=[(5.0, 0), (9.0, 1), (10.0, 2), (12.5, 3), (13.0, 4)])
    assert seconds_to_recover(2.5, cast(Driver, first), cast(Driver, again)) == 10.0


def test_a_broken_promise_is_bold_and_not_good() -> None:
    fine = Outcome("driver", "killed", 0, 0, 0, None, 3.0, 2, {"P1": True})
    broken = Outcome("node", "killed", 0, 0, 4, 0.5, 3.0, 1, {"P3": False, "P8": True})
    assert (fine.good, broken.good) == (True, False)
    assert "**P3 broken**, P8" in table([fine, broken])
