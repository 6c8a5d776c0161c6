"""`python -m jobs.instructions`: question files × precomputed images → the instructions table."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.instructions import InstructionsConfig, instructions


def run(config: InstructionsConfig) -> StepResult:
    """Build the sets that are missing, or nothing where all is there."""
    return instructions(config)


if __name__ == "__main__":
    main("instructions", InstructionsConfig, run)
