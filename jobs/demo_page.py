"""`python -m jobs.demo_page`: serve a local web page on which models answer questions about images, side by side."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.inference.page import DemoPageConfig, demo_page


def run(config: DemoPageConfig) -> StepResult:
    """Serve the page until the process is stopped."""
    return demo_page(config)


if __name__ == "__main__":
    main("demo_page", DemoPageConfig, run)
