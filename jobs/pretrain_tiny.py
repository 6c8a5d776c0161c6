"""`python -m jobs.pretrain_tiny`: makes the tiny backbones that know the sample world."""

from jobs.cli import main
from pipelines.pretraining.config import PretrainTinyConfig
from pipelines.pretraining.step import pretrain_tiny
from pipelines.steps import StepResult


def run(config: PretrainTinyConfig) -> StepResult:
    """Trains the backbones unless they are there."""
    return pretrain_tiny(config)


if __name__ == "__main__":
    main("pretrain_tiny", PretrainTinyConfig, run)
