"""Learning rates over time, and refused configurations."""

import pytest

from pipelines.core.errors import UserError
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainStageConfig


def test_the_warm_up_warms_up() -> None:
    config = OptimizerConfig(warmup=4, schedule="constant")
    assert [config.factor(step, 100) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_warm_up_below_one_is_a_fraction_of_all_steps() -> None:
    assert OptimizerConfig(warmup=0.1).factor(4, 100) == 0.5


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_schedules_fall_from_one_to_their_minimum(schedule: str, middle: float) -> None:
    config = OptimizerConfig(warmup=0, schedule=schedule, minimum=0.1)  # type: ignore[arg-type]
    assert config.factor(0, 100) == 1.0
    assert config.factor(50, 100) == pytest.approx(middle)
    assert config.factor(100, 100) == pytest.approx(0.1 if schedule != "constant" else 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LoopConfig(batch_size=0),
        lambda: LoopConfig(steps=-1),
        lambda: LoopConfig(offload=True),
        lambda: OptimizerConfig(learning_rate=0),
    ],
)
def test_settings_that_cannot_go_well_are_refused(make: object) -> None:
    with pytest.raises(UserError, match=r"must be|needs"):
        make()  # type: ignore[operator]


def test_stages_train_their_groups_with_the_prompts_own_parts() -> None:
    from models.lion import TRAINABLE

    def groups(stage: int, kind: str) -> set[str]:
        from pipelines.training.config import PromptSettings

        prompt = PromptSettings(kind=kind)
        return set(TrainStageConfig("d", "t", "p", stage=stage, prompt=prompt).trained_groups)  # type: ignore[arg-type]

    assert groups(3, "both") == set(TRAINABLE)
    assert groups(1, "static") == {"q_former", "query_tokens", "t5_projection", "ln_vision", "image_adapter", "prompt"}
    assert groups(2, "dynamic") == {"vision_aggregator", "region_adapter", "projector"}
