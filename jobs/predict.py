"""`python -m jobs.predict`: answer a question about an image, with a caption, an answer or a box."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.inference.run import PredictConfig, predict


def run(config: PredictConfig) -> StepResult:
    """Run the model in this process, without Ray."""
    return predict(config)


if __name__ == "__main__":
    main("predict", PredictConfig, run)
