"""Puts an untrained LION together from the tiny backbones."""

from jobs.cli import main
from pipelines.pretraining.compose import TinyLionConfig
from pipelines.steps import StepResult


def run(config: TinyLionConfig) -> StepResult:
    """Runs the step."""
    from pipelines.pretraining.compose import tiny_lion

    return tiny_lion(config)


if __name__ == "__main__":
    main("tiny_lion", TinyLionConfig, run)
