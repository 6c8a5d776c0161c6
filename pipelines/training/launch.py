"""Starts the loop's workers: in this process, by torchrun's launcher, or by Ray Train."""

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
    from pipelines.training.memory import MemoryEstimate

log = logging.getLogger("lion.training")
_FAILURE = "failure.json"
_ray_train_callbacks: ContextVar[tuple[Any, ...]] = ContextVar("ray_train_callbacks", default=())
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_PATIENCE = 300  # seconds that torchrun's workers have between SIGTERM and SIGKILL, to save
_ERRORS: dict[str, type[Exception]] = {"UserError": UserError, "DataRefused": DataRefused, "Stopped": Stopped}


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
        memory: what it is reckoned to take on a GPU; None: nobody asked.
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
    memory: "MemoryEstimate | None" = None
    attempt: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def checkpoints(self) -> str:
        """Where the checkpoints lie."""
        return storage.join(self.folder, "checkpoints")

    @property
    def stop_mark(self) -> str:
        """What the driver leaves to ask the workers of this launch to end."""
        return storage.join(self.folder, f"stop-{self.attempt}")


@contextlib.contextmanager
def ray_train_callbacks(*callbacks: Any) -> Iterator[None]:
    """Let Ray Train's own callbacks, such as Tune's, hear of the trainings that are launched inside."""
    token = _ray_train_callbacks.set(callbacks)
    try:
        yield
    finally:
        _ray_train_callbacks.reset(token)


def launch(job: Job, config: LaunchConfig, ray: RayConfig) -> None:
    """Run the training to its end; from its last checkpoint where it was interrupted.

    Raises:
        UserError: the plan cannot be scheduled, the workers failed too often, or the training says what to change.
        Stopped: SIGTERM reached the driver or a worker, and the training has saved.
    """
    if job.loop.trace and storage.is_remote(job.folder):
        raise UserError(f"loop.trace appends to local files, which {job.folder} is not; leave it out.")
    if config.launcher == "local":
        _locally(dataclasses.replace(job, threads=config.cpus_per_worker or cores_per_process(config.workers)), config)
    else:
        with ray_session(ray):
            _on_ray(job, config)


def work(job: Job, on_ray: bool = False) -> None:
    """Return a worker's whole life. What it has to say to the user is written down, so that no restart repeats it."""
    from pipelines.training import callbacks as told
    from pipelines.training.context import current, threads
    from pipelines.training.interrupts import Interrupts
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
        callbacks.append(told.ReportToRay(job.folder, job.stop_mark))
    interrupts = Interrupts(
        job.stop_mark if on_ray and context.is_main else None, _ray_preemption if on_ray else None
    )  # fmt: skip
    try:
        if context.device.type == "cuda" and job.memory is not None:
            job.memory.require(context.device_memory)
        with threads(job.threads), interrupts.listening():
            train(job.task, job.loop, job.optimizer, context, job.checkpoints, job.identity, callbacks, interrupts)
    except (UserError, DataRefused, Stopped) as error:
        kind = next(name for name, known in _ERRORS.items() if isinstance(error, known))
        failure = {"attempt": job.attempt, "kind": kind, "message": str(error)}
        try:
            storage.write_json(storage.join(job.folder, _FAILURE), failure)
        except OSError as full:
            log.error("%s cannot be written (%s); each restart will meet the mistake again", _FAILURE, full)
        raise
    finally:
        for callback in callbacks:
            callback.close()


def quiet_loading() -> None:
    """End transformers' bars and its lists of weights that a start lacks: each task checks and says that itself."""
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


def _locally(job: Job, config: LaunchConfig) -> None:
    if config.workers == 1:
        work(job)
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
        with _own_signals():
            elastic_launch(settings, work)(job)
    except SignalException as error:
        raise (_failure(job) or Stopped(f"Stopped by {error}; run the same command again to go on.")) from error
    except ChildFailedError as error:
        raise (_failure(job) or UserError(f"The workers failed too often; their last words: {error}")) from error
    if failure := _failure(job):
        raise failure


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the signal handlers that torch's launcher replaces and leaves replaced."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for name, handler in before.items():
                signal.signal(name, handler)


def _on_ray(job: Job, config: LaunchConfig) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipelines.core.signals import on_sigterm

    cpus, gpus = worker_resources(config, bool(ray.cluster_resources().get("GPU", 0)))
    plan = {"CPU": float(cpus * config.fewest)} | ({"GPU": gpus * config.fewest} if gpus else {})
    require_resources(plan, f"{job.name} with {config.fewest} worker{'s' if config.fewest > 1 else ''}")
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"job": dataclasses.replace(job, threads=cpus)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers if config.min_workers is None else (config.min_workers, config.workers),  # type: ignore[arg-type]  # Ray Train V2's, too
            elastic_resize_monitor_interval_s=config.resize_every,  # type: ignore[call-arg]  # Ray Train V2's
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            # A name of its own for every launch: what a training goes on from are its own checkpoints, not Ray's.
            name=job.attempt,
            storage_path=storage.join(job.folder, "ray"),
            callbacks=list(_ray_train_callbacks.get()),
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=config.max_failures,  # type: ignore[call-arg]  # an argument of Ray Train V2
            ),
        ),
    )
    try:
        # Ray's own handler would end the driver, and with it the workers, at once. The workers hear of no signal.
        with on_sigterm(lambda: _ask_to_stop(job)), _start_timeout(config):
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise (_failure(job) or _unwritten(error) or _gave_up(job, config, error)) from error
    finally:
        storage.delete_file(job.stop_mark)
    storage.delete_folder(storage.join(job.folder, "ray"))
    if failure := _failure(job):
        raise failure


@contextlib.contextmanager
def _start_timeout(config: LaunchConfig) -> Iterator[None]:
    """How long Ray Train waits for room for all the workers that it wants, where the environment does not say it.

    Ray counts a node that was lost for a while longer. Workers that may be fewer shall not wait for that one: after
    the next look they begin without it.
    """
    given = os.environ.get(_START_TIMEOUT)
    os.environ.setdefault(_START_TIMEOUT, "300" if config.min_workers is None else "60")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_START_TIMEOUT]


def _ask_to_stop(job: Job) -> None:
    """Leave the mark that the workers look for; asked once more, the driver waits for them no longer."""
    if storage.exists(job.stop_mark):
        raise Stopped("Stopped from outside at once; run the same command again to go on from the last checkpoint.")
    storage.write_atomic(job.stop_mark, b"")


def _unwritten(error: Exception) -> Exception | None:
    """What a worker had to say to the user and could not write down: the disk is full."""
    failures = getattr(error, "worker_failures", {}).values()
    said = [getattr(failure, "_base_exc", failure) for failure in failures]
    return next((one for one in said if isinstance(one, UserError | DataRefused)), None)


def _gave_up(job: Job, config: LaunchConfig, error: Exception) -> Exception:
    return RuntimeError(
        f"{job.name} failed {config.max_failures + 1} times; run it again to go on from its last checkpoint in "
        f"{job.checkpoints}. The last failure: {error}"
    )


def _ray_worker(config: dict[str, Any]) -> None:
    with contextlib.suppress(Stopped):  # to Ray an exception is a failure, and it would start the workers again
        work(config["job"], on_ray=True)


def _ray_preemption() -> Any:
    """What Ray Train knows of nodes that are drained; the run goes on, and Ray restarts it when they are gone."""
    import ray.train

    return ray.train.get_preemption_info()
