"""Checks of every node: versions, GPUs, shared storage, disks, and the way to MLflow."""

import dataclasses
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import DoctorConfig
from pipelines.operations.doctor.findings import Finding, problems_or_ok
from pipelines.registry import Registry

_SAME_EVERYWHERE = ("python", "ray", "torch")
# Ray starts no task on a node whose disk is fuller than this share.
_FULL = 0.95


@dataclasses.dataclass(frozen=True)
class NodeProbe:
    """Measurements of one node.

    Attributes:
        host: name of the node.
        versions: versions of Python, Ray and PyTorch.
        gpus: number of GPUs that Ray counts on the node.
        cuda: whether PyTorch sees a GPU; None if Ray counts none.
        sees_mark: whether the node sees the file that the driver wrote under `out`.
        wrote: error message of the node's own write under `out`; None if it succeeded.
        free: free bytes under `out`; None in an object store.
        disk_used: used share of the disk where Ray keeps its files, in [0, 1].
        mlflow: error message of a request to MLflow; None if it answered or needs no network.
    """

    host: str
    versions: Mapping[str, str]
    gpus: float
    cuda: bool | None
    sees_mark: bool
    wrote: str | None
    free: int | None
    disk_used: float
    mlflow: str | None


def probe_nodes(config: DoctorConfig, nodes: Sequence[Mapping[str, Any]]) -> list[NodeProbe | str]:
    """Probe every node in parallel; a node that did not answer gives an error message.

    Args:
        config: folder of the results, address of MLflow, and the time limit.
        nodes: living nodes, as from `ray.nodes()`.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    out = storage.absolute(config.out)
    mark = storage.join(out, f".doctor-{uuid.uuid4().hex}")
    uri = _network_mlflow_uri(config)
    answers: list[NodeProbe | str] = []
    try:
        storage.write_atomic(mark, b"")
        # No CPUs and no retries: the probe must also run on a busy node, and must fail on a broken one.
        remote = ray.remote(num_cpus=0, max_retries=0)(probe)
        references = [
            remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                runtime_env={"env_vars": {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}},
            ).remote(mark, out, uri, float(node["Resources"].get("GPU", 0)))
            for node in nodes
        ]
        for node, reference in zip(nodes, references, strict=True):
            address = node["NodeManagerAddress"]
            try:
                answers.append(ray.get(reference, timeout=config.patience))
            except GetTimeoutError:
                answers.append(f"{address} did not answer in {config.patience:g} s; read its logs, or remove the node.")
            except RayError as error:
                answers.append(f"{address} cannot run this project's code ({str(error).strip().splitlines()[-1]}).")
    finally:
        storage.delete_file(mark)
    return answers


def probe(mark: str, out: str, mlflow_uri: str | None, gpus: float) -> NodeProbe:
    """Measure the node that this function runs on.

    Args:
        mark: path or URI of the file that the driver wrote.
        out: folder or URI of the results.
        mlflow_uri: address of MLflow; None if it needs no network.
        gpus: number of GPUs that Ray counts on this node.
    """
    import ray
    import torch

    node_mark = f"{mark}-{uuid.uuid4().hex}"
    wrote = None
    try:
        sees = storage.exists(mark)
        storage.write_atomic(node_mark, b"")
        storage.delete_file(node_mark)
    except OSError as error:
        sees, wrote = False, str(error)
    local = not storage.is_remote(out) and os.path.isdir(out)
    disk = shutil.disk_usage("/tmp")
    return NodeProbe(
        host=platform.node(),
        versions={"python": platform.python_version(), "ray": ray.__version__, "torch": torch.__version__},
        gpus=gpus,
        cuda=torch.cuda.is_available() if gpus else None,
        sees_mark=sees,
        wrote=wrote,
        free=shutil.disk_usage(out).free if local else None,
        disk_used=disk.used / disk.total,
        mlflow=_mlflow_error(mlflow_uri) if mlflow_uri else None,
    )


def node_findings(
    config: DoctorConfig, answers: Sequence[NodeProbe | str], driver: Mapping[str, str]
) -> Iterator[Finding]:
    """Turn the answers of the nodes into findings.

    Args:
        config: folder of the results and the required free space.
        answers: from `probe_nodes`.
        driver: versions of Python, Ray and PyTorch in this process.
    """
    errors = [answer for answer in answers if isinstance(answer, str)]
    yield from problems_or_ok("nodes", errors, f"{len(answers)} answered")
    probes = [answer for answer in answers if isinstance(answer, NodeProbe)]
    different = [
        f"{node.host} has {name} {node.versions[name]}, this process {driver[name]}; install the same environment on "
        "all nodes."
        for node in probes
        for name in _SAME_EVERYWHERE
        if node.versions[name] != driver[name]
    ]
    yield from problems_or_ok("versions", different, ", ".join(f"{name} {driver[name]}" for name in _SAME_EVERYWHERE))
    without_cuda = [
        f"Ray counts {node.gpus:g} GPUs on {node.host}, but PyTorch sees none; install PyTorch's CUDA build there, or "
        "repair the driver."
        for node in probes
        if node.cuda is False
    ]
    yield from problems_or_ok("GPUs", without_cuda, f"{sum(node.gpus for node in probes):g}")
    yield from problems_or_ok("shared storage", _unshared(config.out, probes), f"every node sees {config.out}")
    yield from problems_or_ok("disks", _full(config, probes), _least_free(probes))
    unreached = [
        f"{node.host} cannot reach MLflow ({node.mlflow}); set an address that all nodes reach, not loopback."
        for node in probes
        if node.mlflow is not None
    ]
    yield from problems_or_ok("MLflow from the nodes", unreached, "reached, or needs no network")


def _unshared(out: str, probes: Sequence[NodeProbe]) -> list[str]:
    problems = []
    for node in probes:
        if node.wrote is not None:
            problems.append(
                f"{node.host} cannot write under {out} ({node.wrote}); mount the folder there, or use s3:// or gs://."
            )
        elif not node.sees_mark:
            problems.append(
                f"{node.host} does not see files that this process writes under {out}; use a shared folder, s3:// or "
                "gs://."
            )
    return problems


def _full(config: DoctorConfig, probes: Sequence[NodeProbe]) -> list[str]:
    problems = [
        f"{node.host} has {node.free / 2**30:.1f} GiB free for {config.out}, less than --free_gib {config.free_gib:g}."
        for node in probes
        if node.free is not None and node.free < config.free_gib * 2**30
    ]
    return problems + [
        f"{node.host}: the disk of /tmp is {node.disk_used:.0%} full; above {_FULL:.0%} Ray starts no task there. "
        "Delete files, or start Ray with another --temp-dir."
        for node in probes
        if node.disk_used > _FULL
    ]


def _least_free(probes: Sequence[NodeProbe]) -> str:
    free = [node.free for node in probes if node.free is not None]
    return f"at least {min(free) / 2**30:.0f} GiB free on every node" if free else "results go to an object store"


def _network_mlflow_uri(config: DoctorConfig) -> str | None:
    """Return MLflow's address if the nodes reach it over the network, else None."""
    try:
        uri = Registry(config.registry, config.out).uri
    except UserError:
        return None  # `driver_findings` reports this error
    return uri if uri.startswith("http") else None


def _mlflow_error(uri: str) -> str | None:
    """Request something small from MLflow; return the first line of its error, or None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        return str(error).strip().splitlines()[0][:200]
    return None
