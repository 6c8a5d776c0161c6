"""`python -m jobs.precompute`: tag images with confidences and choose their centroid captions, on Ray Data."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.precompute import PrecomputeConfig, precompute


def run(config: PrecomputeConfig) -> StepResult:
    """Compute the missing shards; skip the step if it is complete."""
    return precompute(config)


if __name__ == "__main__":
    main("precompute", PrecomputeConfig, run)
