"""One trial: a training step in a process of Tune's, whose validations Tune hears of as they are made."""

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
    """What every trial is given.

    Attributes:
        verb: the training.
        config: its configuration without what varies.
        prepare: makes the verb's configuration and finds what runs it.
    """

    verb: str
    config: Mapping[str, Any]
    prepare: Prepare

    def run(self, sampled: Mapping[str, Any]) -> None:
        """Train, or goes on with a training that was stopped, or finds it done; reports to Tune."""
        from ray import tune
        from ray.tune.integration.ray_train import TuneReportCallback

        from pipelines.training.launch import ray_train_callbacks

        logging.getLogger("lion").setLevel(logging.WARNING)  # of many trainings at once, Tune's lines say enough
        settings, run = self.prepare(self.verb, with_values(self.config, sampled))
        try:
            with ray_train_callbacks(TuneReportCallback()):
                result = run(settings)
        except Stopped:
            return  # early: the scheduler asked for it
        tune.report(last_report(result.path))


def last_report(folder: str) -> dict[str, Any]:
    """What Tune hears of a finished training: the metrics of the weights that were kept."""
    metrics = storage.read_json(storage.join(folder, MANIFEST))["metrics"]
    values = {name.removeprefix("validation_"): value for name, value in metrics.items()}
    return {**values, "validation_loss": values.get("loss"), "progress": 100.0, "folder": folder, "finished": True}
