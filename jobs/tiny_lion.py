"""Puts an untrained LION together from the tiny backbones."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sample_world.backbones.compose import TinyLionConfig


def run(config: TinyLionConfig) -> StepResult:
    """Run the step."""
    from pipelines.sample_world.backbones.compose import tiny_lion

    return tiny_lion(config)


if __name__ == "__main__":
    main("tiny_lion", TinyLionConfig, run)
