"""Checks of this process and the cluster as a whole: package versions, Java, storage, MLflow, CPUs."""

import importlib.metadata
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import DoctorConfig
from pipelines.operations.doctor.findings import Finding, problems_or_ok, run_check
from pipelines.registry import Registry

_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[^\]]*\])?==(?P<version>\S+)")
# Results, checkpoints or the protocol between processes depend on these packages: another version is a problem. For
# all other packages it is a warning.
_STRICT = {"ray", "torch", "transformers", "deepspeed", "pyarrow", "mlflow"}
# With fewer logical CPUs, Ray Data and Ray Train wait for each other without a message.
_LEAST_CPUS = 3


def package_findings(requirements: str) -> Iterator[Finding]:
    """Compare the installed packages with the pinned versions.

    Args:
        requirements: content of requirements.txt.
    """
    problems = []
    for pin in filter(None, map(_PIN.match, requirements.splitlines())):
        name, pinned = pin["name"], pin["version"]
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{name} {pinned} is not installed; run make, or pip install -r requirements.txt.")
            continue
        if installed == pinned:
            continue
        if name in _STRICT:
            problems.append(f"{name} is {installed}, but this project needs {pinned}; install requirements.txt.")
        else:
            yield Finding("packages", "warning", f"{name} is {installed} instead of {pinned}")
    yield from problems_or_ok("packages", problems, "as pinned in requirements.txt")


def driver_findings(config: DoctorConfig) -> Iterator[Finding]:
    """Check Java, storage and MLflow from this process, without Ray."""
    java = shutil.which("java")
    yield Finding("Java", "ok" if java else "warning", java or
                  "not found: captions are scored with a documented tokenizer instead of the official one")  # fmt: skip

    def check_writable() -> str:
        mark = storage.join(storage.absolute(config.out), f".doctor-{uuid.uuid4().hex}")
        try:
            storage.write_atomic(mark, b"")
            storage.delete_file(mark)
        except OSError as error:
            raise UserError(f"{config.out} cannot be written ({error}); choose another --out.") from error
        return f"{config.out} can be written"

    yield run_check("results", check_writable)

    def check_mlflow() -> str:
        registry = Registry(config.registry, config.out)
        registry.check()
        return f"{registry.uri} answers"

    yield run_check("MLflow", check_mlflow)


def cpu_finding(resources: Mapping[str, float]) -> Finding:
    """Check that the cluster has enough logical CPUs for Ray Data and Ray Train."""
    cpus = resources.get("CPU", 0.0)
    if cpus < _LEAST_CPUS:
        return Finding(
            "CPUs", "problem",
            f"the cluster has {cpus:g} logical CPUs; with fewer than {_LEAST_CPUS}, Ray Data and Ray Train wait for "
            "each other forever. Add nodes, or start Ray with more CPUs (local Ray: --ray.local_cpus 8).",
        )  # fmt: skip
    return Finding("CPUs", "ok", f"{cpus:g} logical CPUs")
