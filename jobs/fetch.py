"""`python -m jobs.fetch`: download public weights and annotation files, with resume and checksums."""

from jobs.cli import main
from pipelines.core.steps import StepResult
from pipelines.sources.fetching.step import FetchConfig, fetch


def run(config: FetchConfig) -> StepResult:
    """Download the missing files, or list the catalog."""
    return fetch(config)


if __name__ == "__main__":
    main("fetch", FetchConfig, run)
