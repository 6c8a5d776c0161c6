"""The place: versions here and on every node, CPUs and GPUs, disks, shared storage, MLflow, Java."""

import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import DoctorConfig
from pipelines.operations.doctor.findings import Finding, ok_unless, refused
from pipelines.registry import Registry

_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[^\]]*\])?==(?P<version>\S+)")
# Results, checkpoints or the wire between processes depend on these; of others another version is a warning.
_STRICT = {"ray", "torch", "transformers", "deepspeed", "pyarrow", "mlflow"}
_SAME_EVERYWHERE = ("python", "ray", "torch")
# Below so many logical CPUs, Ray Data and Ray Train wait for each other without a word.
_LEAST_CPUS = 3
# Beyond so much of a disk in use, Ray starts nothing on its node.
_FULL = 0.95


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a node says of itself.

    Attributes:
        host: its name.
        versions: of Python, Ray and PyTorch.
        gpus: GPUs that Ray counts there.
        cuda: whether PyTorch sees a GPU there; None where Ray counts none.
        sees_mark: whether it sees the file that the driver wrote under `out`.
        wrote: the error of its own writing there, or None.
        free: bytes free under `out` as it sees it; None in an object store.
        disk_used: the part in use of the disk where Ray keeps its files.
        mlflow: the error of asking MLflow from there, or None.
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


def package_findings(requirements: str) -> Iterator[Finding]:
    """Return the installed packages against the pinned ones.

    Args:
        requirements: the text of requirements.txt.
    """
    problems = []
    for found in filter(None, map(_PIN.match, requirements.splitlines())):
        name, pinned = found["name"], found["version"]
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} {pinned} is not installed; run make, or pip install -r requirements.txt.")
            continue
        if installed == pinned:
            continue
        if name in _STRICT:
            problems.append(f"{name} is {installed}, and this project is made for {pinned}; install requirements.txt.")
        else:
            yield Finding("packages", "warning", f"{name} is {installed} instead of {pinned}")
    yield from ok_unless("packages", problems, "as pinned in requirements.txt")


def here_findings(config: DoctorConfig) -> Iterator[Finding]:
    """What needs no Ray: Java, storage and MLflow as this process sees them."""
    java = shutil.which("java")
    yield Finding("Java", "ok" if java else "warning", java or
                  "not found: captions are scored with a documented tokenizer instead of the official one")  # fmt: skip

    def writable() -> str:
        mark = storage.join(storage.absolute(config.out), f".doctor-{uuid.uuid4().hex}")
        try:
            storage.write_atomic(mark, b"")
            storage.delete_file(mark)
        except OSError as error:
            raise UserError(f"{config.out} cannot be written ({error}); choose another --out.") from error
        return f"{config.out} can be written"

    yield refused("results", writable)

    def answers() -> str:
        registry = Registry(config.registry, config.out)
        registry.check()
        return f"{registry.uri} answers"

    yield refused("MLflow", answers)


def probe_nodes(config: DoctorConfig, nodes: Sequence[Mapping[str, Any]]) -> list[Probe | str]:
    """Return every node's answers; a sentence for a node that gave none in time.

    Args:
        config: where results go and which MLflow there is.
        nodes: as `ray.nodes()` lists them, the living ones.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    out = storage.absolute(config.out)
    mark = storage.join(out, f".doctor-{uuid.uuid4().hex}")
    uri = _mlflow_uri(config)
    answers: list[Probe | str] = []
    try:
        storage.write_atomic(mark, b"")
        remote = ray.remote(num_cpus=0, max_retries=0)(probe)
        asked = [
            remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                runtime_env={"env_vars": {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}},
            ).remote(mark, out, uri, float(node["Resources"].get("GPU", 0)))
            for node in nodes
        ]
        for node, one in zip(nodes, asked, strict=True):
            where = node["NodeManagerAddress"]
            try:
                answers.append(ray.get(one, timeout=config.patience))
            except GetTimeoutError:
                answers.append(f"{where} did not answer in {config.patience:g} s; see its logs, or end it.")
            except RayError as error:
                answers.append(f"{where} cannot run this project's code ({str(error).strip().splitlines()[-1]}).")
    finally:
        storage.delete_file(mark)
    return answers


def probe(mark: str, out: str, mlflow_uri: str | None, gpus: float) -> Probe:
    """Run on a node; see `Probe`."""
    import ray
    import torch

    own = f"{mark}-{uuid.uuid4().hex}"
    wrote = None
    try:
        sees = storage.exists(mark)
        storage.write_atomic(own, b"")
        storage.delete_file(own)
    except OSError as error:
        sees, wrote = False, str(error)
    local = not storage.is_remote(out) and os.path.isdir(out)
    disk = shutil.disk_usage("/tmp")
    return Probe(
        host=platform.node(),
        versions={"python": platform.python_version(), "ray": ray.__version__, "torch": torch.__version__},
        gpus=gpus,
        cuda=torch.cuda.is_available() if gpus else None,
        sees_mark=sees,
        wrote=wrote,
        free=shutil.disk_usage(out).free if local else None,
        disk_used=disk.used / disk.total,
        mlflow=_ask(mlflow_uri) if mlflow_uri else None,
    )


def node_findings(config: DoctorConfig, answers: Sequence[Probe | str], here: Mapping[str, str]) -> Iterator[Finding]:
    """What the nodes' answers mean.

    Args:
        config: what must be free, and where.
        answers: of `probe_nodes`.
        here: the driver's own versions.
    """
    yield from ok_unless(
        "nodes", [one for one in answers if isinstance(one, str)], f"{len(answers)} answered"
    )  # fmt: skip
    probes = [one for one in answers if isinstance(one, Probe)]
    other = [
        f"{one.host} has {name} {one.versions[name]}, this process {here[name]}; give all the same environment."
        for one in probes
        for name in _SAME_EVERYWHERE
        if one.versions[name] != here[name]
    ]
    yield from ok_unless("versions", other, ", ".join(f"{name} {here[name]}" for name in _SAME_EVERYWHERE))
    yield from ok_unless(
        "GPUs",
        [
            f"Ray counts {one.gpus:g} GPUs on {one.host}, and PyTorch sees none there; install its CUDA build, or "
            "mend the driver."
            for one in probes
            if one.cuda is False
        ],
        f"{sum(one.gpus for one in probes):g}",
    )
    yield from ok_unless("shared storage", _unshared(config.out, probes), f"every node sees {config.out}")
    yield from ok_unless("disks", _full(config, probes), _least_free(probes))
    unreached = [
        f"MLflow does not answer {one.host} ({one.mlflow}); give an address that all nodes reach, not loopback."
        for one in probes
        if one.mlflow is not None
    ]
    yield from ok_unless("MLflow from the nodes", unreached, "reached, or needs no network")


def cpu_finding(resources: Mapping[str, float]) -> Finding:
    """Whether there are CPUs enough for anything."""
    cpus = resources.get("CPU", 0.0)
    if cpus < _LEAST_CPUS:
        return Finding(
            "CPUs", "problem",
            f"the cluster has {cpus:g} logical CPUs, and with fewer than {_LEAST_CPUS} Ray Data and Ray Train wait for "
            "each other for ever; add nodes, or start Ray with more (a local one: --ray.local_cpus 8).",
        )  # fmt: skip
    return Finding("CPUs", "ok", f"{cpus:g} logical CPUs")


def _unshared(out: str, probes: Sequence[Probe]) -> list[str]:
    problems = []
    for one in probes:
        if one.wrote is not None:
            problems.append(
                f"{one.host} cannot write under {out} ({one.wrote}); mount it there, or use s3:// or gs://."
            )
        elif not one.sees_mark:
            problems.append(f"{one.host} does not see what this process writes under {out}; use a shared folder, s3:// "
                            "or gs://.")  # fmt: skip
    return problems


def _full(config: DoctorConfig, probes: Sequence[Probe]) -> list[str]:
    problems = [
        f"{one.host} has {one.free / 2**30:.1f} GiB free for {config.out}, less than --free_gib {config.free_gib:g}."
        for one in probes
        if one.free is not None and one.free < config.free_gib * 2**30
    ]
    return problems + [
        f"{one.host}'s disk of /tmp is {one.disk_used:.0%} full; beyond {_FULL:.0%} Ray starts nothing there: free "
        "some, or start Ray with another --temp-dir."
        for one in probes
        if one.disk_used > _FULL
    ]


def _least_free(probes: Sequence[Probe]) -> str:
    free = [one.free for one in probes if one.free is not None]
    return f"{min(free) / 2**30:.0f} GiB free where there is least" if free else "results go to an object store"


def _mlflow_uri(config: DoctorConfig) -> str | None:
    """MLflow's address where nodes have to reach it over the network."""
    try:
        uri = Registry(config.registry, config.out).uri
    except UserError:
        return None  # `here_findings` says so
    return uri if uri.startswith("http") else None


def _ask(uri: str) -> str | None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        return str(error).strip().splitlines()[0][:200]
    return None
