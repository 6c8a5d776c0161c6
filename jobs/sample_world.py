"""`python -m jobs.sample_world`: draw a synthetic data set in the file formats of the real benchmarks."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sample_world.writing import SampleWorldConfig, sample_world


def run(config: SampleWorldConfig) -> StepResult:
    """Draw the data set; skip the step if it is complete."""
    return sample_world(config)


if __name__ == "__main__":
    main("sample_world", SampleWorldConfig, run)
