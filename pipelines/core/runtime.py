"""Where a step's Ray work runs: a local Ray of this process, or the cluster that the environment names."""

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
_PATIENCE = 10.0  # seconds that a named cluster has to take a connection
_kept: "RayConfig | None" = None


@dataclasses.dataclass(frozen=True)
class RayConfig:
    """Which Ray a step connects to, and what it may use of it."""

    address: str | None = None
    """Address of a running cluster, or `auto`; empty: the cluster of `RAY_ADDRESS` if set, else a local Ray."""
    local_cpus: int = _LOCAL_CPUS
    """Logical CPUs of a local Ray; more than the machine has is right: Ray Data and Train starve each other below 4."""


@contextlib.contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Connect to Ray and, where this call started it, ends it again. Inside a session it is a no-op.

    Raises:
        UserError: the named cluster does not answer.
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
    """Let the sessions inside share one Ray, started by the first that needs it, with this configuration.

    Inside another such block, the outer one's Ray is shared and outlives this one.
    """
    global _kept
    if _kept is not None:
        yield
        return
    had_one = _running()
    _kept = config
    try:
        yield
    finally:
        _kept = None
        if _running() and not had_one:
            import ray

            ray.shutdown()


def _running() -> bool:
    """Whether this process is connected to a Ray; without importing it, since a skipped step needs none."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _start(config: RayConfig) -> None:
    import ray

    config = _kept or config
    address = config.address or os.environ.get("RAY_ADDRESS")
    # Workers must find the project's packages wherever they are started; on a cluster `ray job submit` ships them.
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
                f"({' '.join(str(error).split())}); give both the same environment: requirements.txt pins it."
            ) from error
        if "timed out during startup" not in str(error):
            raise
        raise UserError(
            f"Ray did not start in time ({error}): the machine is overloaded or short of memory; try again when it is "
            f"less busy."
        ) from error


def python_path() -> str:
    """PYTHONPATH of a process that has to find the project's packages wherever it is started."""
    return os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))


def _no_cluster(address: str | None, error: Exception) -> UserError:
    return UserError(f"No Ray cluster answers at {address!r} ({error}); start one or leave the address out.")


def _require_listening(address: str) -> None:
    """Refuse a HOST:PORT where nothing listens at once; Ray itself would go on asking for minutes."""
    host, found, port = address.rpartition(":")
    if not found or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def quiet_driver() -> None:
    """End what Ray tells a driver beside the steps' own lines: that there is a token, that Data draws no bars, and
    that each of its runs has ended."""
    for name, level in (
        ("ray._private.authentication.authentication_token_setup", logging.ERROR),
        ("ray.data._internal.progress", logging.ERROR),
        ("ray.data._internal.execution.streaming_executor", logging.WARNING),
    ):
        logging.getLogger(name).setLevel(level)


def quiet_worker() -> None:
    """Run in each worker of a local Ray: without a dashboard, Train's cleaner would complain every second; and each
    report would be printed whole, beside the line that the training prints itself."""
    for name in ("controller.placement_group_cleaner", "controller.controller"):
        logging.getLogger(f"ray.train.v2._internal.execution.{name}").setLevel(logging.ERROR)
    package = os.path.dirname(sys.modules["ray"].__file__ or "")  # this one of Train's loggers bears its file's path
    logging.getLogger(os.path.join(package, "train/v2/_internal/execution/context.py")).setLevel(logging.WARNING)


def living_nodes() -> list[dict[str, float]]:
    """Resources of each living node, by Ray's names, and its `cores`: of this machine, as many as there are, since a
    local Ray has more CPUs than that; of another one, its CPUs."""
    import ray

    here = ray.util.get_node_ip_address()
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            cpus = node["Resources"].get("CPU", 0.0)
            cores = min(cpus, os.cpu_count() or 1) if node["NodeManagerAddress"] == here else cpus
            nodes.append({**node["Resources"], "cores": cores})
    return nodes


def threads_here(cpus: int) -> int:
    """Threads of a worker that Ray gave so many logical CPUs; a local Ray has more of them than there are cores."""
    return max(1, min(cpus, os.cpu_count() or 1))


def require_resources(plan: Mapping[str, float], purpose: str) -> None:
    """Refuse a plan that the connected Ray can never schedule, instead of waiting for ever (P11).

    Args:
        plan: what must be free at once, by Ray's resource names, e.g. `{"CPU": 6, "GPU": 1}`.
        purpose: what it is for, as it reads in the message.

    Raises:
        UserError: the cluster's total is less than the plan.
    """
    import ray

    total = ray.cluster_resources()
    for name, amount in plan.items():
        if amount > total.get(name, 0.0):
            raise UserError(
                f"{purpose} needs {amount:g} {name} at once, but the cluster has {total.get(name, 0.0):g}; "
                f"ask for less, or give it more nodes (a local Ray: --ray.local_cpus)."
            )
