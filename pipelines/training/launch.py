"""The launchers of the training loop: this process, torchrun's launcher, or Ray Train.

`launch` starts the workers, and each worker calls `run_worker`, which calls the loop. An error that the user must read
(`UserError`, `DataRefused`, `Stopped`) is written to `failure.json` in the step's folder: the driver raises it again,
and workers that the launcher restarts after it do nothing.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pipelines.core import storage
from pipelines.core.errors import DataRefused, Stopped, UserError
from pipelines.core.resources import LaunchConfig, cores_per_process, worker_resources
from pipelines.core.runtime import RayConfig, ray_session, require_resources
from pipelines.training.config import LoopConfig, OptimizerConfig

if TYPE_CHECKING:
    from pipelines.training.callbacks import Callback, CallbackFactory
    from pipelines.training.context import Context
    from pipelines.training.memory import MemoryEstimate

log = logging.getLogger("lion.training")
_FAILURE = "failure.json"
_ray_train_callbacks: ContextVar[tuple[Any, ...]] = ContextVar("ray_train_callbacks", default=())
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_PATIENCE = 300  # seconds between SIGTERM and SIGKILL in which torchrun's workers can save
_ERRORS: dict[str, type[Exception]] = {"UserError": UserError, "DataRefused": DataRefused, "Stopped": Stopped}


@dataclasses.dataclass(frozen=True)
class WorkerJob:
    """The pickled description of a training that every worker receives.

    Attributes:
        task: a `pipelines.training.task.Task`.
        loop: the configuration of the loop.
        optimizer: the optimizer's settings.
        folder: the step's folder, absolute.
        identity: the step's hash.
        name: the training's name in progress lines.
        threads: number of PyTorch's threads in each worker; None: PyTorch's default.
        mlflow: MLflow's address and the id of the run; None: metrics are not sent.
        memory: the estimate of each worker's memory, which is compared with its GPU; None: no comparison.
        attempt: an id that is new for every launch, so that a restarted worker can tell a failure of this launch from
            one of an earlier launch.
        callbacks: factories of the callbacks that `loop.callbacks` names, called in each worker.

    Raises:
        UserError: `loop.callbacks` names an unknown callback.
    """

    task: Any
    loop: LoopConfig
    optimizer: OptimizerConfig
    folder: str
    identity: str
    name: str
    threads: int | None = None
    mlflow: tuple[str, str] | None = None
    memory: "MemoryEstimate | None" = None
    attempt: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    callbacks: "tuple[CallbackFactory, ...]" = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        from pipelines.training.callbacks import callback_factory

        # The driver looks callbacks up, because a registration from outside the package exists only in its process.
        object.__setattr__(self, "callbacks", tuple(callback_factory(name) for name in self.loop.callbacks))

    @property
    def checkpoints(self) -> str:
        """URI of the folder of the checkpoints."""
        return storage.join(self.folder, "checkpoints")

    @property
    def stop_mark(self) -> str:
        """URI of the file that the driver writes to stop the workers of this launch."""
        return storage.join(self.folder, f"stop-{self.attempt}")


@contextlib.contextmanager
def ray_train_callbacks(*callbacks: Any) -> Iterator[None]:
    """Pass Ray Train's callbacks, such as Tune's, to the trainings that are launched inside the block."""
    token = _ray_train_callbacks.set(callbacks)
    try:
        yield
    finally:
        _ray_train_callbacks.reset(token)


def launch(job: WorkerJob, config: LaunchConfig, ray: RayConfig) -> None:
    """Run a training to its end, from its last checkpoint if it has one.

    Args:
        job: the training.
        config: launcher, number of workers and their resources.
        ray: the Ray cluster, for the launcher `ray`.

    Raises:
        UserError: the workers do not fit on the cluster, failed too often, or refused the configuration or the data.
        Stopped: SIGTERM reached the driver or a worker; the training has saved.
    """
    if job.loop.trace and storage.is_remote(job.folder):
        raise UserError(f"loop.trace appends to local files, but the step's folder is {job.folder}; set it to false.")
    if config.launcher == "local":
        threads = config.cpus_per_worker or cores_per_process(config.workers)
        _run_locally(dataclasses.replace(job, threads=threads), config)
    else:
        with ray_session(ray):
            _run_on_ray(job, config)


def run_worker(job: WorkerJob, on_ray: bool = False) -> None:
    """Run the training loop in this process as one worker.

    Raises:
        UserError: the configuration or the data cannot be used; also written to `failure.json`.
        Stopped: a request to stop arrived; the training has saved.
    """
    from pipelines.training.context import current, threads
    from pipelines.training.interrupts import Interrupts
    from pipelines.training.loop import train

    if _failure(job) is not None:
        return
    silence_transformers()
    logging.getLogger("lion").setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    context = current()
    callbacks = _make_callbacks(job, context, on_ray)
    mark = job.stop_mark if on_ray and context.is_main else None
    interrupts = Interrupts(mark, _ray_preemption if on_ray else None)
    try:
        if context.device.type == "cuda" and job.memory is not None:
            job.memory.require(context.device_memory)
        with threads(job.threads), interrupts.listening():
            train(job.task, job.loop, job.optimizer, context, job.checkpoints, job.identity, callbacks, interrupts)
    except (UserError, DataRefused, Stopped) as error:
        _write_failure(job, error)
        raise
    finally:
        for callback in callbacks:
            callback.close()


def _make_callbacks(job: WorkerJob, context: "Context", on_ray: bool) -> "list[Callback]":
    """Return the callbacks of this worker; progress lines and MLflow are the main worker's."""
    from pipelines.training.callbacks import LogToMlflow, Progress, ReportToRay, Trace

    callbacks: list[Callback] = []
    if job.loop.trace:
        callbacks.append(Trace(storage.join(job.folder, "trace")))
    if context.is_main:
        callbacks.append(Progress(job.name))
        if job.mlflow is not None:
            callbacks.append(LogToMlflow(*job.mlflow))
    if on_ray:
        callbacks.append(ReportToRay(job.folder, job.stop_mark))
    return [*callbacks, *(factory() for factory in job.callbacks)]


def silence_transformers() -> None:
    """Turn off transformers' progress bars and its reports of missing weights: each task checks its weights itself."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _write_failure(job: WorkerJob, error: Exception) -> None:
    kind = next(name for name, class_ in _ERRORS.items() if isinstance(error, class_))
    failure = {"attempt": job.attempt, "kind": kind, "message": str(error)}
    try:
        storage.write_json(storage.join(job.folder, _FAILURE), failure)
    except OSError as full:
        log.error("%s cannot be written (%s); every restarted worker repeats the error", _FAILURE, full)


def _failure(job: WorkerJob) -> Exception | None:
    """Return the error that a worker of this launch has written, or None."""
    path = storage.join(job.folder, _FAILURE)
    if not storage.exists(path):
        return None
    failure = storage.read_json(path)
    if failure["attempt"] != job.attempt:
        return None
    return _ERRORS[failure["kind"]](failure["message"])


def _run_locally(job: WorkerJob, config: LaunchConfig) -> None:
    if config.workers == 1:
        run_worker(job)
        return
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig as ElasticConfig
    from torch.distributed.launcher.api import elastic_launch

    settings = ElasticConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=config.workers, max_restarts=config.max_failures,
        rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", run_id=job.attempt, local_addr="127.0.0.1",
        shutdown_timeout=_PATIENCE,
    )  # fmt: skip
    try:
        with _restored_signals():
            elastic_launch(settings, run_worker)(job)
    except SignalException as error:
        raise (_failure(job) or Stopped(f"Stopped by {error}; run the same command again to resume.")) from error
    except ChildFailedError as error:
        raise (
            _failure(job) or UserError(f"The workers of {job.name} failed too often. The last failure: {error}")
        ) from error
    if failure := _failure(job):
        raise failure


@contextlib.contextmanager
def _restored_signals() -> Iterator[None]:
    """Restore the signal handlers at the end of the block: torch's launcher replaces them and does not restore them."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for name, handler in before.items():
                signal.signal(name, handler)


def _run_on_ray(job: WorkerJob, config: LaunchConfig) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipelines.core.signals import on_sigterm

    cpus, gpus = worker_resources(config, bool(ray.cluster_resources().get("GPU", 0)))
    needs = {"CPU": float(cpus * config.fewest)} | ({"GPU": gpus * config.fewest} if gpus else {})
    require_resources(needs, f"{job.name} with {config.fewest} worker{'s' if config.fewest > 1 else ''}")
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"job": dataclasses.replace(job, threads=cpus)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers if config.min_workers is None else (config.min_workers, config.workers),  # type: ignore[arg-type]  # Ray Train V2 takes a range, too
            elastic_resize_monitor_interval_s=config.resize_every,  # type: ignore[call-arg]  # only in Ray Train V2
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            # A new name for every launch: a training resumes from its checkpoints in the step's folder, not from Ray's.
            name=job.attempt,
            storage_path=storage.join(job.folder, "ray"),
            callbacks=list(_ray_train_callbacks.get()),
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=config.max_failures,  # type: ignore[call-arg]  # only in Ray Train V2
            ),
        ),
    )
    try:
        # Ray's SIGTERM handler would end the driver, and the workers with it, before they save. The workers do not
        # receive the signal: the driver passes it on by the stop mark.
        with on_sigterm(lambda: _request_stop(job)), _start_timeout(config):
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise (_failure(job) or _unwritten_failure(error) or _too_many_failures(job, config, error)) from error
    finally:
        storage.delete_file(job.stop_mark)
    storage.delete_folder(storage.join(job.folder, "ray"))
    if failure := _failure(job):
        raise failure


@contextlib.contextmanager
def _start_timeout(config: LaunchConfig) -> Iterator[None]:
    """Set how long Ray Train waits for room for all workers, unless the environment sets it.

    Ray counts a lost node as alive for some time. An elastic training must not wait for that node: after the timeout
    it starts with fewer workers.
    """
    before = os.environ.get(_START_TIMEOUT)
    os.environ.setdefault(_START_TIMEOUT, "300" if config.min_workers is None else "60")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_START_TIMEOUT]


def _request_stop(job: WorkerJob) -> None:
    """Write the stop mark, which the workers check; on a second request end without waiting for the workers.

    Raises:
        Stopped: this is the second request.
    """
    if storage.exists(job.stop_mark):
        raise Stopped(
            "Stopped by a second request, without a new checkpoint; run the same command again to resume from the last "
            "checkpoint."
        )
    storage.write_atomic(job.stop_mark, b"")


def _unwritten_failure(error: Exception) -> Exception | None:
    """Return a worker's error that is not in `failure.json`, because the disk is full, or None."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    return next((cause for cause in causes if isinstance(cause, UserError | DataRefused)), None)


def _too_many_failures(job: WorkerJob, config: LaunchConfig, error: Exception) -> Exception:
    return RuntimeError(
        f"{job.name} failed {config.max_failures + 1} times; run the same command again to resume from the last "
        f"checkpoint in {job.checkpoints}. The last failure: {error}"
    )


def _ray_worker(config: dict[str, Any]) -> None:
    with contextlib.suppress(Stopped):  # Ray takes any exception for a failure and would restart the workers
        run_worker(config["job"], on_ray=True)


def _ray_preemption() -> Any:
    """Return Ray Train's information on nodes that are drained; Ray restarts the run without them."""
    import ray.train

    return ray.train.get_preemption_info()
