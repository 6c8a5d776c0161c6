"""`sweep` as a step: the configuration as it stands, the trials, then ranks, pictures and the best one's model."""

import dataclasses
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.runtime import keep_ray, live_nodes, ray_session
from pipelines.core.steps import StepFolder, StepResult, canonical, git_commit, run_step
from pipelines.core.workflow import Prepare
from pipelines.registry import PARENT_RUN, Kind, Registry
from pipelines.sweeps.config import SweepConfig, check
from pipelines.sweeps.outcomes import (
    DEFAULT,
    Outcome,
    default_outcome,
    manifest_of,
    outcome_of,
    ranked,
    saved_by_stopping,
)
from pipelines.sweeps.space import Range, combinations, corners, read_space, value_of, with_values
from pipelines.sweeps.trial import Trial

log = logging.getLogger("lion.sweep")
RESULT, RANKING, BEST = "sweep.json", "ranking.md", "best.yaml"
_PICTURES = ("parallel.png", "response.png", "progress.png")
_KINDS: Mapping[str, Kind] = {"train_tag_encoder": "tag_encoder", "train_stage": "lion"}


def sweep(config: SweepConfig, prepare: Prepare) -> StepResult:
    """Run the sweep, or continues it, or finds it done.

    Leaves `ranking.md`, `sweep.json`, `best.yaml` (what `jobs.VERB --config` takes) and pictures, and registers the
    best trial's model.

    Args:
        config: what varies, and what ranks.
        prepare: makes the configuration of a verb and finds what runs it.

    Raises:
        UserError: a wrong configuration, before anything is trained; or no trial came to its end.
    """
    check(config)
    ranges = read_space(config.space, config.search == "grid")
    base = {**config.training, "out": config.out}
    settings = _typed(config, base, ranges, prepare)
    registry = Registry(config.registry, config.out)
    registry.check()
    trials = combinations(ranges) if config.search == "grid" else config.trials
    with keep_ray(config.ray):
        log.info("first the configuration as it stands; then %d trials over %s", trials, ", ".join(config.space))
        default = _train_default(config, base, prepare)

        def work(folder: StepFolder) -> Mapping[str, Any]:
            with ray_session(config.ray):
                return _Sweep(config, ranges, settings, base, registry, default, folder).work(prepare)

        identity = canonical(dataclasses.replace(config, training={}))
        return run_step("sweep", identity, config.out, work, {"default": default.path})


def _typed(config: SweepConfig, base: Mapping[str, Any], ranges: Sequence[Range], prepare: Prepare) -> Any:
    """Return the training's typed configuration; each end and each choice of every range is tried on it."""
    settings, _ = prepare(config.verb, base)
    for found in ranges:
        if found.field.split(".")[0] in ("launch", "registry", "ray", "out", "name"):
            raise UserError(f"space.{found.field} changes where a training runs, not what comes of it; leave it out.")
    for values in corners(list(ranges)):
        changed, _ = prepare(config.verb, with_values(base, values))
        for found in ranges:
            value_of(changed, found.field)
    return settings


def _train_default(config: SweepConfig, base: Mapping[str, Any], prepare: Prepare) -> StepResult:
    """Train the configuration as it stands: what the best is held against, and the first to find a mistake."""
    settings, run = prepare(config.verb, _unregistered(base, config, None))
    result: StepResult = run(settings)
    return result


def _unregistered(base: Mapping[str, Any], config: SweepConfig, parent_run: str | None) -> dict[str, Any]:
    """Return the configuration of a training that registers nothing and whose run lies under the sweep's."""
    registry: dict[str, Any] = {**dataclasses.asdict(config.registry), "register": False, "parent_run": parent_run}
    ray = dataclasses.asdict(config.ray)
    return {**base, "registry": registry, "ray": ray}


@dataclasses.dataclass(frozen=True)
class _Sweep:
    """One execution inside a Ray session."""

    config: SweepConfig
    ranges: Sequence[Range]
    settings: Any
    base: Mapping[str, Any]
    registry: Registry
    default: StepResult
    folder: StepFolder

    def work(self, prepare: Prepare) -> dict[str, Any]:
        """Trials, ranks, pictures and registration; returns the manifest's entries."""
        from pipelines.sweeps.tuning import resolved_launch, run_trials, trials_at_once

        config = self.config
        nodes = live_nodes()
        launch = resolved_launch(self.settings.launch, nodes)
        at_once = trials_at_once(launch, nodes, config.concurrent)
        log.info("%d trials at once, %d workers each", at_once, launch.workers)
        run_id = self.registry.open_run(
            f"sweep {self.settings_name}", self.folder.hash, canonical(config), {"git_commit": str(git_commit())}
        )
        values = with_values(
            _unregistered(self.base, config, run_id),
            {"launch.cpus_per_worker": launch.cpus_per_worker, "launch.gpus_per_worker": launch.gpus_per_worker},
        )
        results = run_trials(config, self.ranges, Trial(config.verb, values, prepare), self.folder, at_once)
        found = [outcome_of(number, one, config.metric, self.ranges) for number, one in results]
        self._end_stopped(found, run_id)
        default = default_outcome(self.default.path, self.settings, config.metric, self.ranges)
        order = ranked([*found, default], config.mode)
        best = self._best(order)
        version = self._register(best, run_id)
        document = self._document(order, found, best, version)
        self._write(document, order, default, best)
        self._log(run_id, best, default)
        names = (RESULT, RANKING, BEST, *_PICTURES)
        return {
            "rows": len(found),
            "files": [{"path": name, "sha256": storage.sha256(self.folder.child(name))} for name in names],
            "run_id": run_id,
            "summary": {
                "best": self.folder.child(BEST),
                "registered": f"models:/{self.settings_name}/{version}",
                config.metric: best.value,
                f"default_{config.metric}": default.value,
                "saved_by_early_stopping": round(saved_by_stopping(found), 4),
                "failed": sum(one.state == "failed" for one in found),
            },
        }

    @property
    def settings_name(self) -> str:
        """The model's name in the registry."""
        return str(getattr(self.settings, "model_name", None) or self.settings.name)

    def _best(self, order: Sequence[Outcome]) -> Outcome:
        best = order[0]
        if not any(one.state == "finished" for one in order if one.name != DEFAULT):
            errors = sorted({one.error for one in order if one.error})
            raise UserError(
                f"No trial came to its end; {len(errors)} errors, the first: {errors[0] if errors else 'none'}. Run "
                "the same command again to start the failed ones once more."
            )
        if best.value is None:
            raise UserError(
                f"The trainings report no {self.config.metric!r}; metric must be one of {sorted(best.metrics)}."
            )
        return best

    def _end_stopped(self, outcomes: Sequence[Outcome], run_id: str) -> None:
        """End the MLflow runs of trials that were stopped, and remove the checkpoints that nobody will go on from."""
        from mlflow.entities import RunStatus

        client = self.registry.client
        experiment = client.get_run(run_id).info.experiment_id
        under = f"tags.`{PARENT_RUN}` = '{run_id}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], under, max_results=1000):
            client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        for one in outcomes:
            if one.state == "stopped early" and one.folder:
                storage.delete_folder(storage.join(one.folder, "checkpoints"))

    def _register(self, best: Outcome, run_id: str) -> int:
        """Return the best one's model as a new version with the alias `candidate`, registered under its own run."""
        manifest = manifest_of(best)
        assert best.folder is not None
        lineage = {**manifest["lineage"], "step": best.folder, "sweep": self.folder.path, "sweep.run": run_id}
        with tempfile.TemporaryDirectory() as local:
            source = storage.join(best.folder, "model")
            if storage.is_remote(source):
                storage.download_folder(source, local)
                source = local
            kind = _KINDS[self.config.verb]
            return self.registry.register(
                self.settings_name, source, manifest["model"]["run_id"], kind, manifest["metrics"], lineage
            )

    def _document(
        self, order: Sequence[Outcome], trials: Sequence[Outcome], best: Outcome, version: int
    ) -> dict[str, Any]:
        return {
            "verb": self.config.verb,
            "metric": self.config.metric,
            "mode": self.config.mode,
            "space": self.config.space,
            "search": self.config.search,
            "trial_seconds": sum(one.seconds for one in trials),
            "saved_by_early_stopping": saved_by_stopping(trials),
            "best": best.name,
            "registered": f"models:/{self.settings_name}/{version}",
            "git_commit": git_commit(),
            "cpu_cores": os.cpu_count(),
            "ranking": [dataclasses.asdict(one) for one in order],
        }

    def _write(self, document: dict[str, Any], order: Sequence[Outcome], default: Outcome, best: Outcome) -> None:
        from pipelines.sweeps import figures

        config, folder = self.config, self.folder
        storage.write_json(folder.child(RESULT), _plain(document))
        storage.write_atomic(folder.child(RANKING), ranking_text(document, order, self.ranges).encode())
        storage.write_atomic(folder.child(BEST), best_yaml(config, self.base, best, default).encode())
        pictures = (
            figures.draw_parallel(order, self.ranges, config.metric, best),
            figures.draw_response(order, self.ranges, config.metric, default, best),
            figures.draw_progress(order, config.metric, best),
        )
        for name, picture in zip(_PICTURES, pictures, strict=True):
            storage.write_atomic(folder.child(name), picture)

    def _log(self, run_id: str, best: Outcome, default: Outcome) -> None:
        """Return the sweep's own run in MLflow: its numbers, its files."""
        client = self.registry.client
        for name, value in (("best", best.value), ("default", default.value)):
            if value is not None:
                client.log_metric(run_id, f"{name}/{self.config.metric}", value)
        with tempfile.TemporaryDirectory() as local:
            for name in (RESULT, RANKING, BEST, *_PICTURES):
                path = os.path.join(local, name)
                with open(path, "wb") as stream:
                    stream.write(storage.read_bytes(self.folder.child(name)))
                client.log_artifact(run_id, path)
        self.registry.close_run(run_id)


def ranking_text(document: Mapping[str, Any], order: Sequence[Outcome], ranges: Sequence[Range]) -> str:
    """Return the ranked table as Markdown; `default` in it is the configuration as it stands."""
    from pipelines.sweeps.tuning import shown

    metric, wanted = document["metric"], "highest" if document["mode"] == "max" else "lowest"
    head = ["rank", "trial", *(found.field for found in ranges), metric, "percent trained", "seconds", "state"]
    lines = [
        f"# Sweep of {document['verb']}", "",
        f"{len(order) - 1} trials, {document['trial_seconds']:.0f} s of them together, on {document['cpu_cores']} CPU "
        f"cores, commit {document['git_commit']}; early stopping spared {document['saved_by_early_stopping']:.0%} of "
        f"the steps. Best is the {wanted} {metric} of what was trained to its end, the configuration as it stands "
        f"(default) included; registered as {document['registered']}.", "",
        " | ".join(head), " | ".join("---" for _ in head),
    ]  # fmt: skip
    for rank, one in enumerate(order, 1):
        value = "" if one.value is None else f"{one.value:.4f}"
        seconds = "" if math.isnan(one.seconds) else f"{one.seconds:.0f}"
        said = one.label + (f": {one.error}" if one.error else "")
        cells = [str(rank), one.name, *(shown(one.values[found.field]) for found in ranges), value,
                 f"{one.progress:.0f}", seconds, said.replace("|", "/")]  # fmt: skip
        lines.append(" | ".join(cells))
    if any(one.collapsed for one in order):
        lines += ["", "collapsed: the cosines to the own caption and to another's differ by less than 0.02: all "
                  "vectors are alike, and the loss is the margin itself."]  # fmt: skip
    return "\n".join(lines) + "\n"


def best_yaml(config: SweepConfig, base: Mapping[str, Any], best: Outcome, default: Outcome) -> str:
    """Return the best trial's configuration, as `jobs.VERB --config` takes it; in the same `out` it is found done."""
    said = "" if default.value is None else f"; as configured {default.value:.4f}"
    head = (
        f"# Best of a sweep over {', '.join(config.space)}: {config.metric} {best.value:.4f}{said}.\n"
        f"# python -m jobs.{config.verb} --config THIS_FILE\n"
    )
    return head + yaml.safe_dump(with_values(base, best.values), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Return the same with None for numbers that JSON cannot write."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
