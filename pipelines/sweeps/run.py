"""`sweep` as a step: train the unchanged configuration, run the trials, rank them, register the best model."""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.core.runtime import keep_ray, live_nodes, ray_session
from pipelines.core.steps import StepFolder, StepResult, canonical, git_commit, run_step
from pipelines.core.workflow import Prepare
from pipelines.registry import PARENT_RUN, Kind, Registry
from pipelines.sweeps.config import SweepConfig, check
from pipelines.sweeps.outcomes import (
    DEFAULT,
    TrialOutcome,
    default_outcome,
    manifest_of,
    outcome_of,
    ranked,
    saved_by_stopping,
)
from pipelines.sweeps.report import best_yaml, json_values, ranking_text
from pipelines.sweeps.space import Range, combinations, corners, read_space, value_of, with_values
from pipelines.sweeps.trial import Trial

log = logging.getLogger("lion.sweep")
RESULT, RANKING, BEST = "sweep.json", "ranking.md", "best.yaml"
_FIGURES = ("parallel.png", "response.png", "progress.png")
_FILES = (RESULT, RANKING, BEST, *_FIGURES)
_KINDS: Mapping[str, Kind] = {"train_tag_encoder": "tag_encoder", "train_stage": "lion"}
# These groups of a training's configuration change where it runs or where its results go, not the result.
_NOT_SWEPT = ("launch", "registry", "ray", "out", "name")


def sweep(config: SweepConfig, prepare: Prepare) -> StepResult:
    """Run the sweep. Resume an unfinished one, skip a finished one.

    Write `ranking.md`, `sweep.json`, `best.yaml` (for `jobs.VERB --config`) and figures, and register the model of the
    best trial.

    Args:
        config: search space, metric and search method.
        prepare: returns a verb's typed configuration and its runner.

    Raises:
        UserError: the configuration is wrong (nothing is trained then), or no trial finished.
    """
    check(config)
    ranges = read_space(config.space, config.search == "grid")
    base = {**config.training, "out": config.out}
    settings = _check_ranges(config, base, ranges, prepare)
    registry = Registry(config.registry, config.out)
    registry.check()
    trials = combinations(ranges) if config.search == "grid" else config.trials
    with keep_ray(config.ray):
        log.info("training the unchanged configuration, then %d trials over %s", trials, ", ".join(config.space))
        default = _train_default(config, base, prepare)

        def work(folder: StepFolder) -> Mapping[str, Any]:
            with ray_session(config.ray):
                return _Sweep(config, ranges, settings, base, registry, default, folder).run(prepare)

        # The default training's folder is an input of the step and already identifies `training`.
        identity = canonical(dataclasses.replace(config, training={}))
        return run_step("sweep", identity, config.out, work, {"default": default.path})


def _check_ranges(config: SweepConfig, base: Mapping[str, Any], ranges: Sequence[Range], prepare: Prepare) -> Any:
    """Return the training's typed configuration, after its verb accepted every choice and both ends of every range."""
    settings, _ = prepare(config.verb, base)
    for item in ranges:
        if item.field.split(".")[0] in _NOT_SWEPT:
            raise UserError(f"space.{item.field} changes where a training runs, not its result; remove it from space.")
    for values in corners(list(ranges)):
        changed, _ = prepare(config.verb, with_values(base, values))
        for item in ranges:
            value_of(changed, item.field)
    return settings


def _train_default(config: SweepConfig, base: Mapping[str, Any], prepare: Prepare) -> StepResult:
    """Train the unchanged configuration. It is the baseline of the ranking, and it fails early on a mistake."""
    settings, run = prepare(config.verb, _unregistered(base, config, None))
    result: StepResult = run(settings)
    return result


def _unregistered(base: Mapping[str, Any], config: SweepConfig, parent_run: str | None) -> dict[str, Any]:
    """Return a training's configuration that registers no model; its MLflow run is a child of `parent_run`."""
    registry: dict[str, Any] = {**dataclasses.asdict(config.registry), "register": False, "parent_run": parent_run}
    ray = dataclasses.asdict(config.ray)
    return {**base, "registry": registry, "ray": ray}


@dataclasses.dataclass(frozen=True)
class _Sweep:
    """One execution of a sweep inside a Ray session.

    Attributes:
        config: the sweep's configuration.
        ranges: the search space.
        settings: typed configuration of the training, unchanged.
        base: the same as plain values.
        registry: MLflow runs and registered models.
        default: result of the unchanged configuration.
        folder: the sweep's step folder.
    """

    config: SweepConfig
    ranges: Sequence[Range]
    settings: Any
    base: Mapping[str, Any]
    registry: Registry
    default: StepResult
    folder: StepFolder

    def run(self, prepare: Prepare) -> dict[str, Any]:
        """Run the trials, rank them, register the best model, write the files; return the manifest's entries."""
        from pipelines.sweeps.tuning import resolved_launch, trials_at_once

        metric, nodes = self.config.metric, live_nodes()
        launch = resolved_launch(self.settings.launch, nodes)
        concurrent = trials_at_once(launch, nodes, self.config.concurrent)  # may refuse, so before the run is opened
        log.info("%d trials at the same time, %d workers each", concurrent, launch.workers)
        run_id = self.registry.open_run(
            f"sweep {self.model_name}", self.folder.hash, canonical(self.config), {"git_commit": str(git_commit())}
        )
        trials = self._run_trials(prepare, launch, concurrent, run_id)
        self._clean_up_stopped(trials, run_id)
        default = default_outcome(self.default.path, self.settings, metric, self.ranges)
        order = ranked([*trials, default], self.config.mode)
        best = self._best(order)
        model = f"models:/{self.model_name}/{self._register(best, run_id)}"
        self._write_files(self._document(order, trials, best, model), order, default, best)
        self._log_to_mlflow(run_id, best, default)
        return {
            "rows": len(trials),
            "files": [{"path": name, "sha256": storage.sha256(self.folder.child(name))} for name in _FILES],
            "run_id": run_id,
            "summary": {
                "best": self.folder.child(BEST),
                "registered": model,
                metric: best.value,
                f"default_{metric}": default.value,
                "saved_by_early_stopping": round(saved_by_stopping(trials), 4),
                "failed": sum(trial.state == "failed" for trial in trials),
            },
        }

    @property
    def model_name(self) -> str:
        """The model's name in the registry."""
        return str(getattr(self.settings, "model_name", None) or self.settings.name)

    def _run_trials(self, prepare: Prepare, launch: LaunchConfig, concurrent: int, run_id: str) -> list[TrialOutcome]:
        """Run the trials, `concurrent` at the same time, and return their outcomes by number."""
        from pipelines.sweeps.tuning import run_trials

        values = with_values(
            _unregistered(self.base, self.config, run_id),
            {"launch.cpus_per_worker": launch.cpus_per_worker, "launch.gpus_per_worker": launch.gpus_per_worker},
        )
        trial = Trial(self.config.verb, values, prepare)
        results = run_trials(self.config, self.ranges, trial, self.folder, concurrent)
        return [outcome_of(number, result, self.config.metric, self.ranges) for number, result in results]

    def _clean_up_stopped(self, trials: Sequence[TrialOutcome], run_id: str) -> None:
        """End the MLflow runs of trials that were stopped early, and delete their checkpoints: none resumes."""
        from mlflow.entities import RunStatus

        client = self.registry.client
        experiment = client.get_run(run_id).info.experiment_id
        running = f"tags.`{PARENT_RUN}` = '{run_id}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], running, max_results=1000):
            client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        for trial in trials:
            if trial.state == "stopped early" and trial.folder:
                storage.delete_folder(storage.join(trial.folder, "checkpoints"))

    def _best(self, order: Sequence[TrialOutcome]) -> TrialOutcome:
        """Return the first of the ranked outcomes, if any trial finished and reported the metric."""
        best = order[0]
        if not any(outcome.state == "finished" for outcome in order if outcome.name != DEFAULT):
            errors = sorted({outcome.error for outcome in order if outcome.error})
            raise UserError(
                f"No trial finished. There were {len(errors)} different errors, the first: "
                f"{errors[0] if errors else 'none'}. Run the same command again to restart the failed trials."
            )
        if best.value is None:
            raise UserError(
                f"The trainings do not report {self.config.metric!r}; set metric to one of {sorted(best.metrics)}."
            )
        return best

    def _register(self, best: TrialOutcome, run_id: str) -> int:
        """Register the best model with the alias `candidate`, under its own MLflow run, and return its version."""
        manifest = manifest_of(best)
        assert best.folder is not None
        lineage = {**manifest["lineage"], "step": best.folder, "sweep": self.folder.path, "sweep.run": run_id}
        with tempfile.TemporaryDirectory() as local:
            source = storage.join(best.folder, "model")
            if storage.is_remote(source):  # MLflow uploads from a local folder
                storage.download_folder(source, local)
                source = local
            kind = _KINDS[self.config.verb]
            return self.registry.register(
                self.model_name, source, manifest["model"]["run_id"], kind, manifest["metrics"], lineage
            )

    def _document(
        self, order: Sequence[TrialOutcome], trials: Sequence[TrialOutcome], best: TrialOutcome, model: str
    ) -> dict[str, Any]:
        """Return the content of `sweep.json`."""
        return {
            "verb": self.config.verb,
            "metric": self.config.metric,
            "mode": self.config.mode,
            "space": self.config.space,
            "search": self.config.search,
            "trial_seconds": sum(trial.seconds for trial in trials),
            "saved_by_early_stopping": saved_by_stopping(trials),
            "best": best.name,
            "registered": model,
            "git_commit": git_commit(),
            "cpu_cores": os.cpu_count(),
            "ranking": [dataclasses.asdict(outcome) for outcome in order],
        }

    def _write_files(
        self, document: dict[str, Any], order: Sequence[TrialOutcome], default: TrialOutcome, best: TrialOutcome
    ) -> None:
        """Write the numbers, the ranking, the best configuration and the figures."""
        from pipelines.sweeps import figures

        config, folder = self.config, self.folder
        storage.write_json(folder.child(RESULT), json_values(document))
        storage.write_atomic(folder.child(RANKING), ranking_text(document, order, self.ranges).encode())
        storage.write_atomic(folder.child(BEST), best_yaml(config, self.base, best, default).encode())
        images = (
            figures.draw_parallel(order, self.ranges, config.metric, best),
            figures.draw_response(order, self.ranges, config.metric, default, best),
            figures.draw_progress(order, config.metric, best),
        )
        for name, image in zip(_FIGURES, images, strict=True):
            storage.write_atomic(folder.child(name), image)

    def _log_to_mlflow(self, run_id: str, best: TrialOutcome, default: TrialOutcome) -> None:
        """Log the metric of the best and the unchanged configuration and all files to the sweep's run, and close it."""
        client = self.registry.client
        for name, value in (("best", best.value), ("default", default.value)):
            if value is not None:
                client.log_metric(run_id, f"{name}/{self.config.metric}", value)
        with tempfile.TemporaryDirectory() as local:
            for name in _FILES:
                path = os.path.join(local, name)
                with open(path, "wb") as stream:
                    stream.write(storage.read_bytes(self.folder.child(name)))
                client.log_artifact(run_id, path)
        self.registry.close_run(run_id)
