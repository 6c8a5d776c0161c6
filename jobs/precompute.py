"""`python -m jobs.precompute`: images to tags with confidences and centroid captions, on Ray Data."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.precompute import PrecomputeConfig, precompute


def run(config: PrecomputeConfig) -> StepResult:
    """Compute what is missing, or nothing where all is there."""
    return precompute(config)


if __name__ == "__main__":
    main("precompute", PrecomputeConfig, run)
