"""Ray Tune runs the trials: how many at once, which are stopped early, and what is gone on with after a kill."""

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
from pipelines.sweeps.space import Range
from pipelines.sweeps.trial import Trial

log = logging.getLogger("lion.sweep")
_OWN_CPUS = 0.1  # of the process that a trial starts its workers from
_EXPERIMENT = "tune"


def run_trials(
    config: SweepConfig, ranges: Sequence[Range], trial: Trial, folder: StepFolder, at_once: int
) -> list[tuple[int, Any]]:
    """Run the trials that are missing and return all of Tune's results with their numbers, from 1.

    Finished trials are not run again, and what was running when the sweep was killed goes on from its checkpoint.
    """
    from ray import tune

    def run(sampled: dict[str, Any]) -> None:
        trial.run(sampled)

    run.__name__ = trial.verb
    trainable = tune.with_resources(run, {"cpu": _OWN_CPUS})
    path = storage.join(folder.path, _EXPERIMENT)
    if tune.Tuner.can_restore(path):
        log.info("The sweep goes on where it was: %s", path)
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={found.field: found.tune(config.search == "grid") for found in ranges},
            tune_config=tune.TuneConfig(
                num_samples=1 if config.search == "grid" else config.trials,
                max_concurrent_trials=at_once,
                search_alg=_search(config, at_once),
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
    results = tuner.fit()
    found = [results[number] for number in range(len(results))]
    return sorted(((trial_number(os.path.basename(one.path)), one) for one in found), key=lambda pair: pair[0])


def resolved_launch(launch: LaunchConfig, nodes: Sequence[Mapping[str, Any]]) -> LaunchConfig:
    """The launch with what it leaves open decided by the cluster, so that every trial takes what was reckoned."""
    return resolve_launch(dataclasses.replace(launch, cpus_per_worker=launch.cpus_per_worker or 1), nodes)


def trials_at_once(launch: LaunchConfig, nodes: Sequence[Mapping[str, Any]], most: int | None) -> int:
    """How many trials have room beside each other, so that none waits for workers that another holds.

    Args:
        launch: of one trial; its `cpus_per_worker` and `gpus_per_worker` are set.
        nodes: the resources of each living node.
        most: a limit of the user's.

    Raises:
        UserError: not even one has room.
    """
    cpus, gpus = float(launch.cpus_per_worker or 1), launch.gpus_per_worker or 0.0
    count = 0
    while most is None or count < most:
        if workers_that_fit(launch, nodes, (count + 1) * _OWN_CPUS) < (count + 1) * launch.workers:
            break
        count += 1
    if not count:
        raise UserError(
            f"A trial needs {launch.workers} workers of {cpus:g} CPUs{f' and {gpus:g} GPUs' if gpus else ''} beside "
            f"{_OWN_CPUS:g} CPU of its own, and the cluster's nodes have {[dict(node) for node in nodes]}; ask for "
            "less by training.launch, or give it more nodes (a local Ray: --ray.local_cpus)."
        )
    return count


def _search(config: SweepConfig, at_once: int) -> Any:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    if config.search == "optuna":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return OptunaSearch(metric=config.metric, mode=config.mode, seed=config.seed)
    return tune.search.BasicVariantGenerator(max_concurrent=at_once, random_state=config.seed)


def _scheduler(config: SweepConfig) -> Any:
    """ASHA over the part of its training that a trial has had, in percent; none is stopped at its very end, before its
    model is saved.

    A trial that is to stop is asked to, by the mark that its workers look for, and ends its workers itself. Killed by
    Tune, it would leave their placement group behind, which Ray Train removes only where a dashboard runs: after a few
    of those there is no room for any trial.
    """
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

    class Asking(ASHAScheduler):  # made here, so that nothing else has to import Tune
        """Asks instead of killing."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            action = super().on_trial_result(tune_controller, trial, result)
            if action != TrialScheduler.STOP:
                return str(action)
            storage.write_atomic(result["stop_mark"], b"")
            return str(TrialScheduler.CONTINUE)

    stopping = config.early_stopping
    if not stopping.enabled:
        return FIFOScheduler()
    return Asking(
        time_attr="progress",
        max_t=99,
        grace_period=100 * stopping.first,  # type: ignore[arg-type]
        reduction_factor=stopping.reduction,
        stop_last_trials=False,
    )


def _progress_lines(config: SweepConfig) -> Any:
    from ray.tune import Callback

    class Lines(Callback):  # made here, so that nothing else has to import Tune
        """A line of each validation and of each end of a trial."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            log.info("trial %s begins: %s", _number(trial), _said(trial.config))

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            value, done = result.get(config.metric, math.nan), result.get("progress", 0)
            log.info("trial %s: %3.0f %%, %s %.4f", _number(trial), done, config.metric, value)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            finished = trial.last_result.get("finished")
            log.info("trial %s %s", _number(trial), "is finished" if finished else "is stopped early")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            log.warning("trial %s failed; what it said stands in the ranking", _number(trial))

    return Lines()


def trial_number(name: str) -> int:
    """Return a trial's number, from 1, by its folder's name; a sweep that goes on keeps it.

    A grid numbers its trials in their ids, from 0; a search gives them ids by chance and numbers them, from 1, in what
    follows.
    """
    found = re.search(r"_(?:[0-9a-f]{5}_(?P<grid>\d{5})|[0-9a-f]{8}_(?P<search>\d+))_", name)
    assert found is not None, name
    return int(found["grid"]) + 1 if found["grid"] else int(found["search"])


def _number(trial: Any) -> int:
    return trial_number(f"_{trial.trial_id}_{trial.experiment_tag}_")


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def shown(value: Any) -> str:
    """Return a value as people read it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def last_line(error: BaseException | None) -> str:
    """What an error of a remote process says, without its traces and the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^[\w.]+: ", "", lines[-1]) if lines else repr(error)
