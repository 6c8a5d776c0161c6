"""`python -m jobs.instructions`: build the instructions table from question files and the tagged table."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.instructions import InstructionsConfig, instructions


def run(config: InstructionsConfig) -> StepResult:
    """Build the missing sets; skip the step if it is complete."""
    return instructions(config)


if __name__ == "__main__":
    main("instructions", InstructionsConfig, run)
