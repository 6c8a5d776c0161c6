"""`python -m jobs.train_tag_encoder`: train the tag encoder with a triplet margin loss and register it."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.training.config import TrainTagEncoderConfig


def run(config: TrainTagEncoderConfig) -> StepResult:
    """Train and register; skip the step if it is complete."""
    from pipelines.training.runs import train_tag_encoder

    return train_tag_encoder(config)


if __name__ == "__main__":
    main("train_tag_encoder", TrainTagEncoderConfig, run)
