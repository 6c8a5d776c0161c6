"""`python -m jobs.convert`: convert released checkpoints to `from_pretrained` folders, and back."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.operations.conversion import ConvertConfig, convert


def run(config: ConvertConfig) -> StepResult:
    """Convert; skip it if the result is complete."""
    return convert(config)


if __name__ == "__main__":
    main("convert", ConvertConfig, run)
