"""Outcomes of the trials: rank, steps saved by early stopping, and collapsed tag encoders."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.steps import MANIFEST
from pipelines.sweeps.space import Range, value_of
from pipelines.sweeps.trial import last_report

DEFAULT = "default"
"""Name of the outcome of the unchanged configuration, which is not a trial."""
State = Literal["finished", "stopped early", "failed"]
# Below this cosine gap, a tag encoder does not separate an image's own caption from another image's: its vectors have
# collapsed to one direction.
_COLLAPSED_GAP = 0.02


@dataclasses.dataclass(frozen=True)
class TrialOutcome:
    """The outcome of one trial.

    Attributes:
        name: number of the trial, from 1; `default` for the unchanged configuration.
        values: sampled values by dotted field.
        state: how the trial ended.
        value: value of the ranking metric; None if the trial failed or did not report a finite value.
        progress: percent of its training that the trial completed.
        seconds: wall time since the trial's last start; NaN for the unchanged configuration, which Tune does not run.
        metrics: metrics of its last validation.
        history: (progress, value) of each validation.
        collapsed: whether all vectors of the tag encoder are alike.
        folder: step folder of the training; None if it failed before its first validation.
        error: message of the error that ended it.
    """

    name: str
    values: Mapping[str, Any]
    state: State
    value: float | None
    progress: float
    seconds: float
    metrics: Mapping[str, float]
    history: Sequence[tuple[float, float]]
    collapsed: bool
    folder: str | None
    error: str | None = None

    @property
    def label(self) -> str:
        """State for tables, with a note if the trial collapsed."""
        return f"{self.state}, collapsed" if self.collapsed else self.state


def outcome_of(number: int, result: Any, metric: str, ranges: Sequence[Range]) -> TrialOutcome:
    """Return the outcome of a trial from its Tune result; `metric` is the ranking metric."""
    reported = result.metrics or {}
    frame = result.metrics_dataframe
    history: list[tuple[float, float]] = []
    if frame is not None and {metric, "progress"} <= set(frame.columns):
        pairs = zip(frame["progress"], frame[metric], strict=True)
        # A dict removes repeats: the last report repeats the last validation, and a restarted trial repeats several.
        history = sorted({float(at): float(value) for at, value in pairs}.items())
    config = result.config or {}
    state: State = "failed" if result.error else "finished" if reported.get("finished") else "stopped early"
    return TrialOutcome(
        name=str(number),
        values={item.field: config.get(item.field) for item in ranges},
        state=state,
        value=None if state == "failed" else _finite(reported.get(metric)),
        progress=float(reported.get("progress", 0.0)),
        seconds=float(reported.get("time_total_s", 0.0)),
        metrics=_numbers(reported),
        history=history,
        collapsed=state != "failed" and _collapsed(reported),
        folder=reported.get("folder"),
        error=_last_line(result.error) if result.error else None,
    )


def default_outcome(folder: str, settings: Any, metric: str, ranges: Sequence[Range]) -> TrialOutcome:
    """Return the outcome of the unchanged configuration, from its typed settings and its training's step folder."""
    reported = last_report(folder)
    return TrialOutcome(
        name=DEFAULT,
        values={item.field: value_of(settings, item.field) for item in ranges},
        state="finished",
        value=_finite(reported.get(metric)),
        progress=100.0,
        seconds=math.nan,
        metrics=_numbers(reported),
        history=[],
        collapsed=_collapsed(reported),
        folder=folder,
    )


def ranked(outcomes: Sequence[TrialOutcome], mode: str) -> list[TrialOutcome]:
    """Return the outcomes by rank: finished trials, then trials stopped early, then failed ones, each best first.

    A trial stopped early ranks below every finished one, because values at different progress cannot be compared.
    """
    order: Mapping[State, int] = {"finished": 0, "stopped early": 1, "failed": 2}
    sign = -1.0 if mode == "max" else 1.0

    def key(outcome: TrialOutcome) -> tuple[int, float]:
        return order[outcome.state], math.inf if outcome.value is None else sign * outcome.value

    return sorted(outcomes, key=key)


def saved_by_stopping(outcomes: Sequence[TrialOutcome]) -> float:
    """Return the share of training steps that early stopping saved, in [0, 1]. Failed trials are not counted."""
    progress = [outcome.progress for outcome in outcomes if outcome.state != "failed"]
    return 1 - sum(progress) / (100 * len(progress)) if progress else 0.0


def manifest_of(outcome: TrialOutcome) -> Mapping[str, Any]:
    """Return the manifest of the training of a finished trial."""
    assert outcome.folder is not None  # every finished trial has a folder
    manifest: Mapping[str, Any] = storage.read_json(storage.join(outcome.folder, MANIFEST))
    return manifest


def _numbers(reported: Mapping[str, Any]) -> dict[str, float]:
    """Return the training's metrics from a Tune report, without Tune's bookkeeping fields."""
    bookkeeping = {
        "progress", "step", "epoch", "timestamp", "training_iteration", "time_this_iter_s", "time_total_s", "pid",
        "time_since_restore", "iterations_since_restore", "done", "finished",
    }  # fmt: skip
    return {
        name: float(value)
        for name, value in reported.items()
        if name not in bookkeeping and isinstance(value, int | float) and not name.startswith("config/")
    }


def _collapsed(reported: Mapping[str, Any]) -> bool:
    gap = reported.get("cosine_gap")
    return gap is not None and abs(gap) < _COLLAPSED_GAP


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _last_line(error: BaseException) -> str:
    """Return the message of a remote error, without the traceback and the class name that Ray puts before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^[\w.]+: ", "", lines[-1]) if lines else repr(error)
