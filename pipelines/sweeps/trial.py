"""One trial: a training step in a Ray Tune process, which reports each validation to Tune."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import Stopped
from pipelines.core.steps import MANIFEST
from pipelines.core.workflow import Prepare
from pipelines.sweeps.space import with_values


@dataclasses.dataclass(frozen=True)
class Trial:
    """The part of a trial that all trials of a sweep share.

    Attributes:
        verb: the training's verb.
        config: its configuration as plain values, without the sampled fields.
        prepare: returns a verb's typed configuration and its runner.
    """

    verb: str
    config: Mapping[str, Any]
    prepare: Prepare

    def run(self, sampled: Mapping[str, Any]) -> None:
        """Train with sampled values, by dotted field, and report to Tune. Resume from a checkpoint if there is one."""
        from ray import tune
        from ray.tune.integration.ray_train import TuneReportCallback

        from pipelines.training.launch import ray_train_callbacks

        # Many trainings run at the same time; the progress lines of the sweep replace their logs.
        logging.getLogger("lion").setLevel(logging.WARNING)
        settings, run = self.prepare(self.verb, with_values(self.config, sampled))
        try:
            with ray_train_callbacks(TuneReportCallback()):
                result = run(settings)
        except Stopped:
            return  # the scheduler requested an early stop; the last validation is already reported
        tune.report(last_report(result.path))


def last_report(folder: str) -> dict[str, Any]:
    """Return the last report of a finished training: the validation metrics of the saved weights.

    Args:
        folder: the training's step folder.
    """
    metrics = storage.read_json(storage.join(folder, MANIFEST))["metrics"]
    values = {name.removeprefix("validation_"): value for name, value in metrics.items()}
    return {**values, "validation_loss": values.get("loss"), "progress": 100.0, "folder": folder, "finished": True}
