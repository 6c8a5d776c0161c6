"""The files of a sweep for people: the best configuration as YAML, numbers for JSON, figures."""

import math

import pytest
import yaml

from pipelines.sweeps import figures
from pipelines.sweeps.config import SweepConfig
from pipelines.sweeps.outcomes import DEFAULT, TrialOutcome
from pipelines.sweeps.report import best_yaml, json_values
from pipelines.sweeps.space import Range

RANGES = [Range("margin", "choice", (0.3, 0.5)), Range("optimizer.learning_rate", "log_uniform", (1e-5, 1e-3))]


def outcome(name: str, value: float | None, margin: float = 0.3, rate: float = 1e-4) -> TrialOutcome:
    state, history = ("finished", [(50.0, 0.1), (100.0, value)]) if value is not None else ("failed", [])
    values = {"margin": margin, "optimizer.learning_rate": rate}
    return TrialOutcome(name, values, state, value, 100.0, 1.0, {}, history, False, None)  # type: ignore[arg-type]


def test_the_best_values_replace_those_of_the_unchanged_configuration() -> None:
    config = SweepConfig(space={"margin": {"choice": [0.3, 0.5]}})
    base = {"data": "runs/precompute-1", "margin": 1.0, "optimizer": {"learning_rate": 1e-2, "warmup": 0.1}}
    text = best_yaml(config, base, outcome("1", 0.4, margin=0.5), outcome(DEFAULT, 0.25))
    assert "cosine_gap 0.4000; unchanged configuration: 0.2500" in text
    assert yaml.safe_load(text) == {
        "data": "runs/precompute-1", "margin": 0.5, "optimizer": {"learning_rate": 1e-4, "warmup": 0.1},
    }  # fmt: skip
    assert base["margin"] == 1.0


def test_numbers_that_json_does_not_have_become_null() -> None:
    document = {
        "seconds": math.nan,
        "ranking": [{"value": math.inf}, {"value": 0.5, "name": "1"}],
        "pair": (1, -math.inf),
    }
    assert json_values(document) == {
        "seconds": None, "ranking": [{"value": None}, {"value": 0.5, "name": "1"}], "pair": [1, None],
    }  # fmt: skip


@pytest.mark.parametrize("ranges", [RANGES, RANGES[:1], RANGES[1:]], ids=["two fields", "choice", "logarithmic"])
def test_figures_are_drawn_with_failed_trials_and_values_outside_a_range(ranges: list[Range]) -> None:
    best, default = outcome("1", 0.4), outcome(DEFAULT, 0.2, margin=0.7, rate=0.1)  # outside both ranges
    outcomes = [best, outcome("2", 0.3, margin=0.5), default, outcome("3", None)]
    for image in (
        figures.draw_parallel(outcomes, ranges, "cosine_gap", best),
        figures.draw_response(outcomes, ranges, "cosine_gap", default, best),
        figures.draw_progress(outcomes, "cosine_gap", best),
    ):
        assert image.startswith(b"\x89PNG")
