"""`python -m jobs.sample_world`: draws the sample world in the real benchmarks' own file formats."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sample_world.writing import SampleWorldConfig, sample_world


def run(config: SampleWorldConfig) -> StepResult:
    """Draw the world unless it is there."""
    return sample_world(config)


if __name__ == "__main__":
    main("sample_world", SampleWorldConfig, run)
