"""Ray sessions of steps: a local Ray that the process starts, or a running cluster."""

import contextlib
import dataclasses
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping

from pipelines.core.errors import UserError

log = logging.getLogger("lion.runtime")
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_LOCAL_CPUS = 8
_CONNECT_SECONDS = 10.0
_kept: "RayConfig | None" = None  # the configuration of the outermost `keep_ray` block


@dataclasses.dataclass(frozen=True)
class RayConfig:
    """Address and size of the Ray cluster that a step uses."""

    address: str | None = None
    """Address of a running cluster, such as 10.0.0.1:6379 or auto; empty: RAY_ADDRESS if set, else a local Ray."""
    local_cpus: int = _LOCAL_CPUS
    """Logical CPUs of a local Ray; may exceed the number of cores. Below 4, Ray Data and Ray Train block each other."""


@contextlib.contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Connect to Ray; shut it down at the end if this call started it. Inside another session this is a no-op.

    Raises:
        UserError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray

    if ray.is_initialized():
        yield
        return
    _start(config)
    try:
        yield
    finally:
        if not _kept:
            ray.shutdown()


@contextlib.contextmanager
def keep_ray(config: RayConfig) -> Iterator[None]:
    """Share one Ray between all sessions in the block. The first session that needs it starts it with `config`.

    Blocks may be nested: the outermost block decides the configuration and shuts Ray down.
    """
    global _kept
    if _kept is not None:
        yield
        return
    was_running = _running()
    _kept = config
    try:
        yield
    finally:
        _kept = None
        if _running() and not was_running:
            import ray

            ray.shutdown()


def _running() -> bool:
    """Return whether this process is connected to Ray. Do not import Ray: a skipped step does not need it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _start(config: RayConfig) -> None:
    import ray

    config = _kept or config
    address = config.address or os.environ.get("RAY_ADDRESS")
    # Workers start in another directory and must find the project's packages. On a cluster, the job's package has them.
    environment = {
        "env_vars": {"PYTHONPATH": python_path()},
        "worker_process_setup_hook": "pipelines.core.runtime.quiet_worker",
    }
    if address:
        _require_listening(address)
    quiet_driver()
    try:
        if address and address != "local":
            ray.init(address=address, log_to_driver=True, logging_level=logging.WARNING)
        else:
            ray.init(
                address="local",
                num_cpus=config.local_cpus,
                include_dashboard=False,
                runtime_env=environment,
                logging_level=logging.WARNING,
            )
    except (ConnectionError, ValueError) as error:
        raise _no_cluster(address, error) from error
    except Exception as error:  # Ray raises no narrower class in either case
        if "Version mismatch" in str(error):
            raise UserError(
                f"The cluster at {address!r} and this process have different versions "
                f"({' '.join(str(error).split())}); install the versions of requirements.txt in both."
            ) from error
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            f"Ray did not start in time ({error}): the machine is overloaded or short of memory; try again when it is "
            "less busy."
        ) from error


def python_path() -> str:
    """Return the PYTHONPATH with which a process in any working directory finds the project's packages."""
    return os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))


def _no_cluster(address: str | None, error: Exception) -> UserError:
    return UserError(
        f"No Ray cluster answers at {address!r} ({error}); start one there, or leave the address empty for a local Ray."
    )


def _require_listening(address: str) -> None:
    """Refuse a HOST:PORT on which no process listens. Ray itself would retry for minutes before it fails."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def quiet_driver() -> None:
    """Silence log lines that Ray repeats at each step: about its token, its progress bars and finished runs."""
    for name, level in (
        ("ray._private.authentication.authentication_token_setup", logging.ERROR),
        ("ray.data._internal.progress", logging.ERROR),
        ("ray.data._internal.execution.streaming_executor", logging.WARNING),
    ):
        logging.getLogger(name).setLevel(level)


def quiet_worker() -> None:
    """Silence log lines of Ray Train in a worker process; a local Ray calls this in each worker.

    Without a dashboard, Train's placement group cleaner logs a warning every second. Train also logs each report in
    full, although the training loop logs it in one line.
    """
    for name in ("controller.placement_group_cleaner", "controller.controller"):
        logging.getLogger(f"ray.train.v2._internal.execution.{name}").setLevel(logging.ERROR)
    package = os.path.dirname(sys.modules["ray"].__file__ or "")  # this logger of Train is named by its file's path
    logging.getLogger(os.path.join(package, "train/v2/_internal/execution/context.py")).setLevel(logging.WARNING)


def live_nodes() -> list[dict[str, float]]:
    """Return the resources of each live node by Ray's names, with an additional entry `cores`.

    `cores` is the number of physical cores of this machine, which may be smaller than `CPU` (see
    `RayConfig.local_cpus`), and `CPU` on other machines.
    """
    import ray

    address = ray.util.get_node_ip_address()
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            cpus = node["Resources"].get("CPU", 0.0)
            cores = min(cpus, os.cpu_count() or 1) if node["NodeManagerAddress"] == address else cpus
            nodes.append({**node["Resources"], "cores": cores})
    return nodes


def worker_threads(cpus: int) -> int:
    """Return the number of threads for a worker with `cpus` logical CPUs: at most the machine's number of cores."""
    return max(1, min(cpus, os.cpu_count() or 1))


def require_resources(plan: Mapping[str, float], purpose: str) -> None:
    """Refuse a plan that the cluster can never schedule, instead of waiting forever (P11).

    Args:
        plan: the resources that are needed at the same time, by Ray's names, e.g. `{"CPU": 6, "GPU": 1}`.
        purpose: the subject of the error message, e.g. `precompute`.

    Raises:
        UserError: the cluster's total is less than the plan.
    """
    import ray

    total = ray.cluster_resources()
    for name, amount in plan.items():
        if amount > total.get(name, 0.0):
            raise UserError(
                f"{purpose} needs {amount:g} {name} at the same time, but the cluster has {total.get(name, 0.0):g}; "
                "request less, or add nodes (a local Ray: raise --ray.local_cpus)."
            )
