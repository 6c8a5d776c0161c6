"""Every imported package is in requirements.txt; what only tests and checks need is in requirements-dev.txt."""

import ast
import functools
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDERS = ("models", "pipelines", "jobs", "cluster")
OWN = {*FOLDERS, "tests"}
TOOLS = {"pytest-timeout", "ruff", "mypy"}
"""Requirements of development that are run and not imported."""


def requirements(path: Path) -> dict[str, Requirement]:
    """Return the requirements of a file, without those of files that it includes, by normalized name."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}


def imported(folder: Path) -> set[str]:
    """Return the top-level modules that the code of a folder imports, without Python's own and the project's."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - OWN


@functools.cache
def distributions(module: str) -> frozenset[str]:
    """Return the normalized names of the distributions that contain a module."""
    return frozenset(map(canonicalize_name, _installed().get(module, ())))


@functools.cache
def _installed() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_runs_imports_only_requirements(root: Path, folder: str) -> None:
    declared = set(requirements(root / "requirements.txt"))
    undeclared = sorted(module for module in imported(root / folder) if not distributions(module) & declared)
    assert not undeclared, f"{folder}/ imports {undeclared}; add the packages to requirements.txt."


def test_tests_import_only_requirements_of_development(root: Path) -> None:
    declared = {*requirements(root / "requirements.txt"), *requirements(root / "requirements-dev.txt")}
    undeclared = sorted(module for module in imported(root / "tests") if not distributions(module) & declared)
    assert not undeclared, f"tests/ imports {undeclared}; add the packages to requirements-dev.txt."


def test_every_requirement_is_imported_where_it_is_needed(root: Path) -> None:
    runs = {name for folder in FOLDERS for module in imported(root / folder) for name in distributions(module)}
    assert set(requirements(root / "requirements.txt")) <= runs
    tests = {name for module in imported(root / "tests") for name in distributions(module)}
    development = set(requirements(root / "requirements-dev.txt"))
    assert development <= tests | TOOLS
    assert not development & runs, "a package that runs belongs to requirements.txt"


def test_requirements_are_pinned_to_what_is_installed(root: Path) -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        for package, requirement in requirements(root / name).items():
            installed = importlib.metadata.version(package).partition("+")[0]  # torch's wheels for CPUs end on +cpu
            assert str(requirement.specifier) == f"=={installed}", package


def test_development_includes_what_runs_and_the_demo_does_without_it(root: Path) -> None:
    assert "-r requirements.txt" in (root / "requirements-dev.txt").read_text().splitlines()
    rules = dict(re.findall(r"^([\w-]+): (\$\(\w+\))", (root / "Makefile").read_text(), re.MULTILINE))
    assert {target for target, stamp in rules.items() if stamp == "$(DEV_STAMP)"} >= {"test", "lint", "types", "bench"}
    assert {target for target, stamp in rules.items() if stamp == "$(STAMP)"} == {"cluster", "demo", "page"}
    assert "requirements-dev" not in (root / "cluster/Containerfile").read_text()
