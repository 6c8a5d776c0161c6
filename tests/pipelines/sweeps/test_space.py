"""The search space: ranges from YAML, malformed ranges, and configurations with values."""

from typing import Any

import pytest
from ray.tune.search import sample

from pipelines.core.errors import UserError
from pipelines.sweeps.space import combinations, corners, read_space, value_of, with_values
from pipelines.training.config import TrainStageConfig


def test_ranges_become_tune_objects() -> None:
    ranges = read_space(
        {
            "margin": {"uniform": [0.1, 1]},
            "optimizer.learning_rate": {"log_uniform": ["1e-5", 1e-3]},  # YAML 1.1 reads 1e-5 as a text
            "prompt.tokens": {"integer": [1, 4]},
            "p": {"choice": [1.0, 2.0]},
        },
        grid=False,
    )
    margin, rate, tokens, norm = (item.to_tune(grid=False) for item in ranges)
    assert isinstance(margin, sample.Float)
    assert (margin.lower, margin.upper) == (0.1, 1.0)
    assert isinstance(rate, sample.Float)
    assert (rate.lower, rate.upper, type(rate.sampler).__name__) == (1e-5, 1e-3, "_LogUniform")
    assert isinstance(tokens, sample.Integer)
    assert (tokens.lower, tokens.upper) == (1, 5)  # Tune excludes the upper end
    assert isinstance(norm, sample.Categorical)
    assert norm.categories == [1.0, 2.0]


@pytest.mark.parametrize(
    "entry, grid, message",
    [
        (0.5, False, "give one of choice"),
        ({"normal": [0, 1]}, False, "give one of choice"),
        ({"choice": [1], "uniform": [1, 2]}, False, "give one of choice"),
        ({"choice": []}, False, "list of values"),
        ({"choice": 3}, False, "list of values"),
        ({"choice": [1, 2, 1]}, False, "each choice may occur only once"),
        ({"uniform": [1]}, False, "two numbers"),
        ({"uniform": [2, 1]}, False, "the lower first"),
        ({"uniform": ["low", "high"]}, False, "two numbers"),
        ({"uniform": [False, True]}, False, "two numbers"),
        ({"log_uniform": [0, 1]}, False, "above 0"),
        ({"integer": [1, 2.5]}, False, "whole numbers"),
        ({"uniform": [1, 2]}, True, "a grid is made of choices"),
    ],
)
def test_a_malformed_range_is_refused_by_name(entry: Any, grid: bool, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read_space({"optimizer.learning_rate": entry}, grid)
    assert str(refused.value).startswith("space.optimizer.learning_rate is ")


def test_every_end_and_every_choice_is_in_a_corner() -> None:
    ranges = read_space({"a": {"choice": [1, 2, 3]}, "b": {"uniform": [0, 1]}}, grid=False)
    sets = list(corners(ranges))
    assert {values["a"] for values in sets} == {1, 2, 3}
    assert {values["b"] for values in sets} == {0.0, 1.0}
    assert combinations(read_space({"a": {"choice": [1, 2, 3]}, "b": {"choice": [0, 1]}}, grid=True)) == 6


def test_values_are_set_in_a_copy() -> None:
    original = {"optimizer": {"learning_rate": 1.0, "warmup": 2}}
    changed = with_values(original, {"optimizer.learning_rate": 0.5, "prompt.tokens": 4})
    assert changed == {"optimizer": {"learning_rate": 0.5, "warmup": 2}, "prompt": {"tokens": 4}}
    assert original == {"optimizer": {"learning_rate": 1.0, "warmup": 2}}


def test_a_value_is_read_from_a_typed_configuration() -> None:
    settings = TrainStageConfig("data", "tagged", "parent", mix={"image": 2.0})
    assert value_of(settings, "prompt.tokens") == 1
    assert value_of(settings, "mix.image") == 2.0
    assert value_of(settings, "mix.region") is None
