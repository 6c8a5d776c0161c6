"""Starts the loop's workers: in this process, by torchrun's launcher, or by Ray Train."""

import dataclasses
import logging
import os
import uuid
from typing import Any

from pipelines import storage
from pipelines.errors import DataRefused, UserError
from pipelines.runtime import RayConfig, ray_session, require_resources
from pipelines.training.config import LaunchConfig, LoopConfig, OptimizerConfig

log = logging.getLogger("lion.training")
_FAILURE = "failure.json"
_ERRORS: dict[str, type[Exception]] = {"UserError": UserError, "DataRefused": DataRefused}


@dataclasses.dataclass(frozen=True)
class Job:
    """What every worker is given, pickled.

    Attributes:
        task: a `pipelines.training.task.Task`.
        loop: how it trains.
        optimizer: with which settings.
        folder: the step's folder, absolute.
        identity: the step's hash.
        name: what progress lines call it.
        threads: PyTorch's threads of a worker; None leaves them.
        mlflow: MLflow's address and the run; None logs nowhere.
        attempt: made anew by every launch, so that a restarted worker knows a failure of this launch from an old one.
    """

    task: Any
    loop: LoopConfig
    optimizer: OptimizerConfig
    folder: str
    identity: str
    name: str
    threads: int | None = None
    mlflow: tuple[str, str] | None = None
    attempt: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def checkpoints(self) -> str:
        """Where the checkpoints lie."""
        return storage.join(self.folder, "checkpoints")


def launch(job: Job, config: LaunchConfig, ray: RayConfig) -> None:
    """Runs the training to its end; from its last checkpoint where it was interrupted.

    Raises:
        UserError: the plan cannot be scheduled, the workers failed too often, or the training says what to change.
    """
    if job.loop.trace and storage.is_remote(job.folder):
        raise UserError(f"loop.trace appends to local files, which {job.folder} is not; leave it out.")
    if config.launcher == "local":
        _locally(dataclasses.replace(job, threads=config.cpus_per_worker or _share(config.workers)), config)
    else:
        with ray_session(ray):
            _on_ray(job, config)


def work(job: Job, on_ray: bool = False) -> None:
    """A worker's whole life. What it has to say to the user is written down, so that no restart repeats it."""
    from pipelines.training import callbacks as told
    from pipelines.training.context import current, threads
    from pipelines.training.loop import train

    if _failure(job) is not None:
        return
    quiet_loading()
    logging.getLogger("lion").setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    context = current()
    callbacks: list[told.Callback] = []
    if job.loop.trace:
        callbacks.append(told.Trace(storage.join(job.folder, "trace")))
    if context.is_main:
        callbacks.append(told.Progress(job.name))
        if job.mlflow is not None:
            callbacks.append(told.LogToMlflow(*job.mlflow))
    if on_ray:
        callbacks.append(told.ReportToRay())
    try:
        with threads(job.threads):
            train(job.task, job.loop, job.optimizer, context, job.checkpoints, job.identity, callbacks)
    except (UserError, DataRefused) as error:
        kind = "DataRefused" if isinstance(error, DataRefused) else "UserError"
        failure = {"attempt": job.attempt, "kind": kind, "message": str(error)}
        storage.write_json(storage.join(job.folder, _FAILURE), failure)
        raise
    finally:
        for callback in callbacks:
            callback.close()


def quiet_loading() -> None:
    """Ends transformers' bars and its lists of weights that a start lacks: each task checks and says that itself."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _failure(job: Job) -> Exception | None:
    """What a worker of this launch had to say to the user."""
    path = storage.join(job.folder, _FAILURE)
    if not storage.exists(path):
        return None
    found = storage.read_json(path)
    if found["attempt"] != job.attempt:
        return None
    return _ERRORS[found["kind"]](found["message"])


def _share(workers: int) -> int:
    return max(1, min(8, (os.cpu_count() or 1) // workers))


def _locally(job: Job, config: LaunchConfig) -> None:
    if config.workers == 1:
        work(job)
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig as ElasticConfig
    from torch.distributed.launcher.api import elastic_launch

    settings = ElasticConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=config.workers, max_restarts=config.max_failures,
        rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", run_id=job.attempt, local_addr="127.0.0.1",
    )  # fmt: skip
    try:
        elastic_launch(settings, work)(job)
    except ChildFailedError as error:
        raise (_failure(job) or UserError(f"The workers failed too often; their last words: {error}")) from error
    if failure := _failure(job):
        raise failure


def _on_ray(job: Job, config: LaunchConfig) -> None:
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cpus = config.cpus_per_worker or _share(config.workers)
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    plan = {"CPU": float(cpus * config.workers)} | ({"GPU": gpus * config.workers} if gpus else {})
    require_resources(plan, f"{job.name} with {config.workers} worker{'s' if config.workers > 1 else ''}")
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"job": dataclasses.replace(job, threads=cpus)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            # A name of its own for every launch: what a training goes on from are its own checkpoints, not Ray's.
            name=job.attempt,
            storage_path=storage.join(job.folder, "ray"),
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=config.max_failures,  # type: ignore[call-arg]  # an argument of Ray Train V2
            ),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise (_failure(job) or _gave_up(job, config, error)) from error
    if failure := _failure(job):
        raise failure
    storage.delete_folder(storage.join(job.folder, "ray"))


def _gave_up(job: Job, config: LaunchConfig, error: Exception) -> Exception:
    return RuntimeError(
        f"{job.name} failed {config.max_failures + 1} times; run it again to go on from its last checkpoint in "
        f"{job.checkpoints}. The last failure: {error}"
    )


def _ray_worker(config: dict[str, Any]) -> None:
    work(config["job"], on_ray=True)
