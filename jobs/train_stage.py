"""Trains one of LION's stages and registers it."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.training.config import TrainStageConfig


def run(config: TrainStageConfig) -> StepResult:
    """Run the step."""
    from pipelines.training.runs import train_stage

    return train_stage(config)


if __name__ == "__main__":
    main("train_stage", TrainStageConfig, run)
