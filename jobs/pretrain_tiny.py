"""`python -m jobs.pretrain_tiny`: pre-train the tiny backbones on scenes of the sample world."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sample_world.backbones.config import PretrainTinyConfig


def run(config: PretrainTinyConfig) -> StepResult:
    """Train the backbones; skip the step if it is complete."""
    from pipelines.sample_world.backbones.step import pretrain_tiny

    return pretrain_tiny(config)


if __name__ == "__main__":
    main("pretrain_tiny", PretrainTinyConfig, run)
