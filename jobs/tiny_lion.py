"""`python -m jobs.tiny_lion`: assemble an untrained LION from the tiny backbones."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sample_world.backbones.compose import TinyLionConfig


def run(config: TinyLionConfig) -> StepResult:
    """Assemble the model; skip it if it is complete."""
    from pipelines.sample_world.backbones.compose import tiny_lion

    return tiny_lion(config)


if __name__ == "__main__":
    main("tiny_lion", TinyLionConfig, run)
