"""Trains the tag encoder by triplet margin and registers it."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.training.config import TrainTagEncoderConfig


def run(config: TrainTagEncoderConfig) -> StepResult:
    """Run the step."""
    from pipelines.training.runs import train_tag_encoder

    return train_tag_encoder(config)


if __name__ == "__main__":
    main("train_tag_encoder", TrainTagEncoderConfig, run)
