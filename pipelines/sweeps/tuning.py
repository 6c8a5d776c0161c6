"""Running the trials with Ray Tune: how many at the same time, early stopping, and resuming a killed sweep."""

import dataclasses
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig, resolve_launch, workers_that_fit
from pipelines.core.steps import StepFolder
from pipelines.sweeps.config import SweepConfig
from pipelines.sweeps.space import Range, format_value
from pipelines.sweeps.trial import Trial

log = logging.getLogger("lion.sweep")
_TRIAL_CPUS = 0.1  # logical CPUs of the process that starts a trial's workers
_EXPERIMENT = "tune"


def resolved_launch(launch: LaunchConfig, nodes: Sequence[Mapping[str, Any]]) -> LaunchConfig:
    """Return the launch with its open CPU and GPU counts set for these nodes.

    Every trial gets this launch, so that each takes exactly the resources that `trials_at_once` counts.
    """
    return resolve_launch(dataclasses.replace(launch, cpus_per_worker=launch.cpus_per_worker or 1), nodes)


def trials_at_once(launch: LaunchConfig, nodes: Sequence[Mapping[str, Any]], most: int | None) -> int:
    """Return the number of trials that fit on the nodes at the same time.

    More trials would deadlock: each would hold some workers and wait for the others.

    Args:
        launch: launch of one trial, with `cpus_per_worker` and `gpus_per_worker` set.
        nodes: the resources of each living node.
        most: the user's limit; None for no limit.

    Raises:
        UserError: not even one trial fits.
    """
    cpus, gpus = float(launch.cpus_per_worker or 1), launch.gpus_per_worker or 0.0
    count = 0
    while most is None or count < most:
        if workers_that_fit(launch, nodes, (count + 1) * _TRIAL_CPUS) < (count + 1) * launch.workers:
            break
        count += 1
    if not count:
        raise UserError(
            f"A trial needs {launch.workers} workers of {cpus:g} CPUs{f' and {gpus:g} GPUs' if gpus else ''}, plus "
            f"{_TRIAL_CPUS:g} CPU for the trial's process, but the cluster's nodes have "
            f"{[dict(node) for node in nodes]}; lower training.launch.workers or training.launch.cpus_per_worker, or "
            "add nodes (local Ray: raise --ray.local_cpus)."
        )
    return count


def run_trials(
    config: SweepConfig, ranges: Sequence[Range], trial: Trial, folder: StepFolder, concurrent: int
) -> list[tuple[int, Any]]:
    """Run the missing trials and return (number, Tune result) of all trials, by number from 1.

    Finished trials are not run again. Trials that ran when the sweep was killed resume from their checkpoints.

    Args:
        config: the sweep's configuration.
        ranges: the search space.
        trial: what all trials share.
        folder: the sweep's step folder; Tune keeps its state in it.
        concurrent: number of trials that run at the same time.
    """
    from ray import tune

    def run(sampled: dict[str, Any]) -> None:
        trial.run(sampled)

    run.__name__ = trial.verb  # Tune names the trials' folders after the function
    trainable = tune.with_resources(run, {"cpu": _TRIAL_CPUS})
    path = storage.join(folder.path, _EXPERIMENT)
    if tune.Tuner.can_restore(path):
        log.info("resuming the sweep in %s", path)
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = _new_tuner(config, ranges, trainable, folder, concurrent)
    grid = tuner.fit()
    results = [grid[index] for index in range(len(grid))]
    numbered = [(trial_number(os.path.basename(result.path)), result) for result in results]
    return sorted(numbered, key=lambda pair: pair[0])


def _new_tuner(
    config: SweepConfig, ranges: Sequence[Range], trainable: Any, folder: StepFolder, concurrent: int
) -> Any:
    from ray import tune

    grid = config.search == "grid"
    return tune.Tuner(
        trainable,
        param_space={item.field: item.to_tune(grid) for item in ranges},
        tune_config=tune.TuneConfig(
            num_samples=1 if grid else config.trials,
            max_concurrent_trials=concurrent,
            search_alg=_search(config, concurrent),
            scheduler=_scheduler(config),
            metric=config.metric,
            mode=config.mode,
        ),
        run_config=tune.RunConfig(
            name=_EXPERIMENT,
            storage_path=folder.path,
            failure_config=tune.FailureConfig(max_failures=config.retries),
            verbose=0,
            callbacks=[_progress_lines(config)],
        ),
    )


def _search(config: SweepConfig, concurrent: int) -> Any:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    if config.search == "optuna":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return OptunaSearch(metric=config.metric, mode=config.mode, seed=config.seed)
    return tune.search.BasicVariantGenerator(max_concurrent=concurrent, random_state=config.seed)


def _scheduler(config: SweepConfig) -> Any:
    """Return the early-stopping scheduler: ASHA over the progress of a trial, in percent of its training.

    The last comparison is before 99 %, so that no trial is stopped while it saves its model.

    The scheduler does not kill a trial. It writes the trial's stop mark, and the trial ends its workers itself. If Tune
    killed the process, the workers' placement group would stay, because Ray Train removes it only if a dashboard runs.
    After a few such trials the cluster would have no room for another.
    """
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

    class StopByMark(ASHAScheduler):  # a local class, so that importing this module does not import Tune
        """ASHA that writes a trial's stop mark instead of killing the trial."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action = super().on_trial_result(tune_controller, trial, result)
            if action != TrialScheduler.STOP:
                return str(action)
            storage.write_atomic(result["stop_mark"], b"")
            return str(TrialScheduler.CONTINUE)

    stopping = config.early_stopping
    if not stopping.enabled:
        return FIFOScheduler()
    return StopByMark(
        time_attr="progress",
        max_t=99,
        grace_period=100 * stopping.first,  # type: ignore[arg-type]
        reduction_factor=stopping.reduction,
        stop_last_trials=False,
    )


def _progress_lines(config: SweepConfig) -> Any:
    """Return a Tune callback that logs each start, validation and end of a trial."""
    from ray.tune import Callback

    class ProgressLines(Callback):  # a local class, so that importing this module does not import Tune
        """Log lines of a sweep."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            log.info("trial %s started: %s", _number(trial), _settings_text(trial.config))

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            value, done = result.get(config.metric, math.nan), result.get("progress", 0)
            log.info("trial %s: %3.0f %%, %s %.4f", _number(trial), done, config.metric, value)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            finished = trial.last_result.get("finished")
            log.info("trial %s %s", _number(trial), "finished" if finished else "stopped early")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            log.warning("trial %s failed; the ranking will show its error", _number(trial))

    return ProgressLines()


def trial_number(name: str) -> int:
    """Return a trial's number, from 1, from the name of its folder. A resumed sweep keeps the numbers.

    A grid writes the number into the trial's id, counting from 0. A search has random ids, each followed by a number
    that counts from 1.
    """
    match = re.search(r"_(?:[0-9a-f]{5}_(?P<grid>\d{5})|[0-9a-f]{8}_(?P<search>\d+))_", name)
    assert match is not None, name
    return int(match["grid"]) + 1 if match["grid"] else int(match["search"])


def _number(trial: Any) -> int:
    return trial_number(f"_{trial.trial_id}_{trial.experiment_tag}_")


def _settings_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
