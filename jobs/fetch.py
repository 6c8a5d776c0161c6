"""`python -m jobs.fetch`: public weights and annotation files, resumed, checked, and listed."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sources.fetching.step import FetchConfig, fetch


def run(config: FetchConfig) -> StepResult:
    """Bring what is not there yet, or lists."""
    return fetch(config)


if __name__ == "__main__":
    main("fetch", FetchConfig, run)
