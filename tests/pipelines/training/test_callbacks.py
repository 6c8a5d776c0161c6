"""The trace of a training's steps."""

import json
from pathlib import Path

import pytest
import torch

from pipelines.training.callbacks import Step, Trace
from pipelines.training.context import Context

STEP = Step(
    step=7, epoch=0.5, loss=1.5, rates={}, gradient_norm=None, loss_scale=None, samples=2, tokens=9, seconds=0.1,
    waited=0.0, ids=["a", "b"],
)  # fmt: skip


@pytest.mark.parametrize(
    "existing", ["", '{"step": 6}\n', '{"step": 6}\n{"step": 7, "lo'], ids=["new", "whole", "half a line"]
)
def test_a_resumed_trace_begins_on_a_new_line(tmp_path: Path, existing: str) -> None:
    file = tmp_path / "rank-0.jsonl"
    file.write_text(existing)
    trace = Trace(str(tmp_path))
    trace.start(7, 9, Context(0, 1, torch.device("cpu")))
    trace.step(STEP)
    trace.close()
    *before, last = file.read_text().splitlines()
    assert json.loads(last) == {"step": 7, "loss": 1.5, "ids": ["a", "b"], "world": 1, "pid": json.loads(last)["pid"]}
    assert before == existing.splitlines()
