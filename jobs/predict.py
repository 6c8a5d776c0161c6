"""`python -m jobs.predict`: an image and a question in; a caption, an answer or a box out."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.inference.run import PredictConfig, predict


def run(config: PredictConfig) -> StepResult:
    """Ask the model in this process, without Ray."""
    return predict(config)


if __name__ == "__main__":
    main("predict", PredictConfig, run)
