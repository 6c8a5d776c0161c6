"""`python -m jobs.sweep`: search settings of a training with Ray Tune, rank the trials, register the best model."""

import sys

from jobs.cli import main
from jobs.pipeline import prepare
from pipelines.core import storage
from pipelines.core.steps import StepResult
from pipelines.sweeps.config import SweepConfig


def run(config: SweepConfig) -> StepResult:
    """Run the sweep and print its ranking; skip it if it is complete."""
    from pipelines.sweeps.run import RANKING, sweep

    result = sweep(config, prepare)
    sys.stderr.write(storage.read_bytes(storage.join(result.path, RANKING)).decode())
    return result


if __name__ == "__main__":
    main("sweep", SweepConfig, run)
