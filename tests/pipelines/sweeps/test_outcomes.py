"""Ranks, steps saved by early stopping, collapsed encoders, and the number of trials that fit on a cluster."""

import dataclasses
from typing import Any

import pandas as pd
import pytest

from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.sweeps.outcomes import TrialOutcome, outcome_of, ranked, saved_by_stopping
from pipelines.sweeps.report import ranking_text
from pipelines.sweeps.space import Range
from pipelines.sweeps.tuning import trial_number, trials_at_once

MARGIN = Range("margin", "uniform", (0.1, 1.0))


@dataclasses.dataclass
class Result:
    """The fields of a Tune result that outcomes read."""

    metrics: dict[str, Any] | None
    config: dict[str, Any] | None = None
    error: Exception | None = None
    metrics_dataframe: pd.DataFrame | None = None


def outcome(number: int, **metrics: Any) -> TrialOutcome:
    return outcome_of(number, Result(metrics, {"margin": number / 10}), "cosine_gap", [MARGIN])


def test_an_outcome_holds_how_a_trial_ended() -> None:
    frame = pd.DataFrame({"progress": [50.0, 100.0, 100.0], "cosine_gap": [0.1, 0.3, 0.3]})
    reported = {"cosine_gap": 0.3, "progress": 100.0, "finished": True, "time_total_s": 9.0, "folder": "/runs/x"}
    finished = outcome_of(1, Result(reported, {"margin": 0.7}, None, frame), "cosine_gap", [MARGIN])
    assert (finished.state, finished.value, finished.values, finished.seconds) == (
        "finished",
        0.3,
        {"margin": 0.7},
        9.0,
    )
    assert finished.history == [(50.0, 0.1), (100.0, 0.3)]  # a repeated report occurs once
    assert finished.metrics == {"cosine_gap": 0.3}
    stopped = outcome(2, cosine_gap=0.2, progress=33.0)
    assert (stopped.state, stopped.progress) == ("stopped early", 33.0)
    error = RuntimeError("ray::run\n  File x\npipelines.core.errors.DataRefused: The loss is not finite\n")
    failed = outcome_of(3, Result(None, {"margin": 0.2}, error), "cosine_gap", [MARGIN])
    assert (failed.state, failed.value) == ("failed", None)
    assert failed.error == "The loss is not finite"


def test_finished_trials_rank_before_better_ones_that_were_stopped() -> None:
    outcomes = [
        outcome(1, cosine_gap=0.9, progress=50.0),
        outcome(2, cosine_gap=0.3, finished=True, progress=100.0),
        outcome(3, cosine_gap=0.5, finished=True, progress=100.0),
        outcome(4, cosine_gap=float("nan"), finished=True, progress=100.0),
        outcome_of(5, Result(None, None, RuntimeError("x")), "cosine_gap", [MARGIN]),
    ]
    assert [item.name for item in ranked(outcomes, "max")] == ["3", "2", "4", "1", "5"]
    assert [item.name for item in ranked(outcomes, "min")] == ["2", "3", "4", "1", "5"]
    assert saved_by_stopping(outcomes) == pytest.approx(1 - 350 / 400)


def test_collapse_is_detected_and_reported() -> None:
    collapsed = outcome(1, cosine_gap=0.01, finished=True, progress=100.0)
    healthy = outcome(2, cosine_gap=0.4, finished=True, progress=100.0)
    assert [collapsed.collapsed, healthy.collapsed] == [True, False]
    document = {
        "verb": "train_tag_encoder", "metric": "cosine_gap", "mode": "max", "trial_seconds": 1.0, "cpu_cores": 2,
        "git_commit": "abc", "saved_by_early_stopping": 0.0, "registered": "models:/x/1",
    }  # fmt: skip
    text = ranking_text(document, [healthy, collapsed], [MARGIN])
    assert "finished, collapsed" in text
    assert "vectors are alike" in text
    assert "collapsed" not in ranking_text(document, [healthy], [MARGIN])


@pytest.mark.parametrize(
    "name, number",
    [
        ("train_tag_encoder_b5875_00000_0_optimizer_learning_rate=0.0010_2026-11-22_05-51-06", 1),
        ("train_tag_encoder_b5875_00011_11_margin=0.5_2026-11-22_05-51-06", 12),
        ("train_stage_7d3005e1_1_projector_scale=3.7,prompt_tokens=2_2026-11-22_07-39-30", 1),
        ("train_stage_0d3005e1_12_projector_scale=3.7_2026-11-22_07-39-30", 12),
    ],
)
def test_trials_of_a_grid_and_of_a_search_are_numbered_from_1(name: str, number: int) -> None:
    assert trial_number(name) == number


def nodes(*cpus: float, gpus: float = 0.0) -> list[dict[str, float]]:
    return [{"CPU": count, "GPU": gpus} for count in cpus]


@pytest.mark.parametrize(
    "launch, cluster, most, expected",
    [
        (
            LaunchConfig(workers=1, cpus_per_worker=2, gpus_per_worker=0),
            nodes(8),
            None,
            3,
        ),  # each trial's process takes 0.1 CPU
        (LaunchConfig(workers=2, cpus_per_worker=1, gpus_per_worker=0), nodes(8), None, 3),
        (LaunchConfig(workers=1, cpus_per_worker=2, gpus_per_worker=0), nodes(8), 2, 2),
        (
            LaunchConfig(workers=2, cpus_per_worker=3, gpus_per_worker=0),
            nodes(5, 5),
            None,
            1,
        ),  # a worker does not span two nodes
        (LaunchConfig(workers=4, cpus_per_worker=1, gpus_per_worker=1), nodes(64, gpus=8), None, 2),
        (LaunchConfig(workers=1, cpus_per_worker=1, gpus_per_worker=0.5), nodes(64, gpus=2), None, 4),
    ],
)
def test_as_many_trials_run_at_the_same_time_as_fit(
    launch: LaunchConfig, cluster: list[dict[str, float]], most: int | None, expected: int
) -> None:
    assert trials_at_once(launch, cluster, most) == expected


def test_a_trial_that_never_has_room_is_refused() -> None:
    launch = LaunchConfig(workers=4, cpus_per_worker=2, gpus_per_worker=1)
    with pytest.raises(UserError, match="4 workers of 2 CPUs and 1 GPUs"):
        trials_at_once(launch, nodes(8, gpus=2), None)
