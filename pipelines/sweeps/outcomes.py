"""What came of the trials: their ranks, what early stopping saved, and which of them learned nothing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.steps import MANIFEST
from pipelines.sweeps.space import Range, value_of
from pipelines.sweeps.trial import last_report
from pipelines.sweeps.tuning import last_line

DEFAULT = "default"
"""The name of the configuration as it stands, which was no trial."""
State = Literal["finished", "stopped early", "failed"]
# A tag encoder whose vectors tell an image's own caption from another's by less has put everything in one place.
_COLLAPSED_GAP = 0.02


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One trial.

    Attributes:
        name: its number, from 1; or `default` for the configuration as it stands.
        values: of the fields that vary.
        state: how it ended.
        value: of the metric that ranks; None where it has none, or failed.
        progress: percent of its training that it had.
        seconds: wall time of its last start; NaN where it was not Tune that ran it.
        metrics: its last validation.
        history: (progress, value) of each validation.
        collapsed: all of the tag encoder's vectors are alike.
        folder: the training's own folder; None where it never came to a validation.
        error: what went wrong.
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
        """Its state with what there is to say of it."""
        return f"{self.state}, collapsed" if self.collapsed else self.state


def outcome_of(number: int, result: Any, metric: str, ranges: Sequence[Range]) -> Outcome:
    """Return a trial from one of Tune's results."""
    reported = result.metrics or {}
    frame = result.metrics_dataframe
    history: list[tuple[float, float]] = []
    if frame is not None and {metric, "progress"} <= set(frame.columns):
        pairs = zip(frame["progress"], frame[metric], strict=True)
        # The last report repeats the last validation, and a trial that was started again repeats some.
        history = sorted({float(at): float(value) for at, value in pairs}.items())
    config = result.config or {}
    state: State = "failed" if result.error else "finished" if reported.get("finished") else "stopped early"
    return Outcome(
        name=str(number),
        values={found.field: config.get(found.field) for found in ranges},
        state=state,
        value=None if state == "failed" else _finite(reported.get(metric)),
        progress=float(reported.get("progress", 0.0)),
        seconds=float(reported.get("time_total_s", 0.0)),
        metrics=_numbers(reported),
        history=history,
        collapsed=state != "failed" and _collapsed(reported),
        folder=reported.get("folder"),
        error=last_line(result.error) if result.error else None,
    )


def default_outcome(folder: str, settings: Any, metric: str, ranges: Sequence[Range]) -> Outcome:
    """Return the configuration as it stands, from its training's folder."""
    reported = last_report(folder)
    return Outcome(
        name=DEFAULT,
        values={found.field: value_of(settings, found.field) for found in ranges},
        state="finished",
        value=_finite(reported.get(metric)),
        progress=100.0,
        seconds=math.nan,
        metrics=_numbers(reported),
        history=[],
        collapsed=_collapsed(reported),
        folder=folder,
    )


def ranked(outcomes: Sequence[Outcome], mode: str) -> list[Outcome]:
    """Finished trials first, the best of them on top; then those stopped early, and those that failed."""
    order: Mapping[State, int] = {"finished": 0, "stopped early": 1, "failed": 2}
    sign = -1.0 if mode == "max" else 1.0
    return sorted(outcomes, key=lambda one: (order[one.state], math.inf if one.value is None else sign * one.value))


def saved_by_stopping(outcomes: Sequence[Outcome]) -> float:
    """Return the part of all trials' steps that early stopping spared; failed trials count on neither side."""
    ran = [one for one in outcomes if one.state != "failed"]
    return 1 - sum(one.progress for one in ran) / (100 * len(ran)) if ran else 0.0


def manifest_of(outcome: Outcome) -> Mapping[str, Any]:
    """Return the manifest of a finished trial's training."""
    assert outcome.folder is not None  # a finished trial has one
    found: Mapping[str, Any] = storage.read_json(storage.join(outcome.folder, MANIFEST))
    return found


def _numbers(reported: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a validation among what Tune keeps of a trial."""
    own = {"progress", "step", "epoch", "timestamp", "training_iteration", "time_this_iter_s", "time_total_s", "pid",
           "time_since_restore", "iterations_since_restore", "done", "finished"}  # fmt: skip
    return {
        name: float(value)
        for name, value in reported.items()
        if name not in own and isinstance(value, int | float) and not name.startswith("config/")
    }


def _collapsed(reported: Mapping[str, Any]) -> bool:
    gap = reported.get("cosine_gap")
    return gap is not None and abs(gap) < _COLLAPSED_GAP


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
