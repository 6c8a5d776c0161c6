"""`python -m jobs.train_stage`: train one of LION's three stages and register the model."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.training.config import TrainStageConfig


def run(config: TrainStageConfig) -> StepResult:
    """Train and register; skip the step if it is complete."""
    from pipelines.training.runs import train_stage

    return train_stage(config)


if __name__ == "__main__":
    main("train_stage", TrainStageConfig, run)
