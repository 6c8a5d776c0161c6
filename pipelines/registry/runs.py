"""Runs in MLflow: one per step, the same one after a restart."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from pipelines.registry.connection import MlflowConnection, first_line

log = logging.getLogger("lion.registry")
_MAX_PARAMETER = 6000  # MLflow's own limit of a parameter's length
_STEP = "lion.step_hash"
PARENT_RUN = "mlflow.parentRunId"
"""MLflow's own tag for the run that another run is shown under."""


class Runs(MlflowConnection):
    """The runs of one MLflow experiment."""

    def open_run(
        self,
        name: str,
        step_hash: str,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Return the id of a step's run: the run that it began before a restart, else a new one.

        Args:
            name: the run's name.
            step_hash: the step's identity (`StepFolder.hash`), stored as a tag, by which the run is looked up.
            parameters: nested configuration; logged flat, with dotted names.
            tags: for example the commit and the digests of the inputs.
        """
        client, experiment = self.client, self.experiment_id()
        existing = client.search_runs(
            [experiment], f"tags.`{_STEP}` = '{step_hash}'", max_results=1, order_by=["attributes.start_time ASC"]
        )
        if existing:
            client.update_run(existing[0].info.run_id, status="RUNNING")
            return existing[0].info.run_id
        parent = {PARENT_RUN: self.config.parent_run} if self.config.parent_run else {}
        all_tags = {_STEP: step_hash} | parent | dict(tags or {})
        run_id = client.create_run(experiment, run_name=name, tags=all_tags).info.run_id
        for key, value in flatten(parameters or {}).items():
            client.log_param(run_id, key, str(value)[:_MAX_PARAMETER])
        return run_id

    def close_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """End a run."""
        self.client.set_terminated(run_id, status)

    def abandon_run(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """End the run of a training that failed. If MLflow does not answer, log a warning instead of an error.

        The training's own error is on its way to the user; an unreachable MLflow must not replace it.
        """
        from mlflow.exceptions import MlflowException

        try:
            with self.short_timeout():
                self.close_run(run_id, status)
        except (MlflowException, OSError) as error:
            log.warning("MLflow at %s does not answer (%s); run %s could not be set to %s", self.uri,
                        first_line(error), run_id, status)  # fmt: skip


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted names; leave out empty mappings and None."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
