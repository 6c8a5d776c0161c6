"""The structure of the repository: which folder may import which, and that `--help` is fast."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from jobs.cli import make_parser

FORBIDDEN = {
    "models": {"ray", "mlflow", "deepspeed", "pipelines", "jobs", "tests"},
    "pipelines": {"jobs", "tests"},
    "jobs": {"tests"},
}
MODELS = {
    "lion": {"tag_encoder"},  # a LION with a dynamic prompt contains a tag encoder
    "ram": set(),
    "tag_encoder": set(),
}
"""The packages of `models/`, each with those that it may import. What they share is in the modules of `models/`."""
ROOMS = (
    "core",  # steps, storage, tables, shards, Ray sessions, errors
    "sources",  # readers of annotation files and images, boxes, fetching
    "registry",  # MLflow runs and registered models
    "precompute",
    "instructions",
    "training",
    "scoring",  # benchmarks and metrics over lists and tables
    "inference",  # asking a model: predict, page, serving
    "evaluation",
    "sample_world",  # drawn scenes, and the tiny backbones that know them
    "comparison",
    "sweeps",
    "operations",  # pipelines, doctor, submission, conversion
)
"""The folders of `pipelines/`: each may import those before it."""
HEAVY = ("torch", "ray", "deepspeed", "mlflow", "sentence_transformers", "transformers")
VERBS = sorted(
    {path.stem for path in (Path(__file__).parent.parent / "jobs").glob("*.py")} - {"__init__", "__main__", "cli"}
)


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a module imports, at any place in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_imports_point_one_way(root: Path, room: str) -> None:
    modules = list((root / room).rglob("*.py"))
    assert modules
    wrong = {str(path.relative_to(root)): names for path in modules if (names := imported(path) & FORBIDDEN[room])}
    assert not wrong, f"{room}/ may not import these: {wrong}"


def submodules_imported(path: Path, package: str) -> set[str]:
    """Return the names below `package` that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def test_every_module_of_pipelines_is_in_a_room(root: Path) -> None:
    folders = {path.name for path in (root / "pipelines").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)
    assert [path.name for path in (root / "pipelines").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(root: Path, room: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    modules = list((root / "pipelines" / room).rglob("*.py"))
    assert modules
    wrong = {
        str(path.relative_to(root)): later
        for path in modules
        if (later := submodules_imported(path, "pipelines") - allowed)
    }
    assert not wrong, f"pipelines/{room} comes before these: {wrong}"


def test_packages_of_models_share_modules_and_not_each_other(root: Path) -> None:
    packages = {path.name for path in (root / "models").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set(MODELS)
    for package, allowed in MODELS.items():
        modules = list((root / "models" / package).rglob("*.py"))
        forbidden = packages - allowed - {package}
        wrong = {path.name: others for path in modules if (others := submodules_imported(path, "models") & forbidden)}
        assert not wrong, f"models/{package} may not import these: {wrong}"
    loose = {path.name: packages & submodules_imported(path, "models") for path in (root / "models").glob("*.py")}
    assert not any(loose.values()), f"shared modules may not import a package of models/: {loose}"


def test_tags_are_converted_in_one_module(root: Path) -> None:
    """Ensure that only `models/tags.py` converts an image's tags to dictionaries and back."""
    conversion = re.compile(r'\w\["tag"\],|\{"tag": \w+, "score"')
    modules = [path for folder in FORBIDDEN for path in (root / folder).rglob("*.py")]
    places = [str(path.relative_to(root)) for path in modules if conversion.search(path.read_text())]
    assert places == ["models/tags.py"]


def test_every_verb_has_a_yaml_file(root: Path) -> None:
    assert VERBS
    missing = [verb for verb in VERBS if not (root / "jobs" / f"{verb}.yaml").exists()]
    assert not missing


@pytest.mark.parametrize("verb", VERBS)
def test_help_works_without_a_heavy_import(root: Path, verb: str) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['{verb}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('jobs.{verb}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert "--out" in run.stdout
    assert run.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_has_a_docstring(verb: str) -> None:
    run = importlib.import_module(f"jobs.{verb}").run
    parser = make_parser(verb, get_type_hints(run)["config"])
    undocumented = [action.dest for action in parser._actions if not (action.help or "").strip()]
    assert not undocumented


@pytest.mark.parametrize("verb", VERBS)
def test_the_yaml_file_of_a_verb_is_a_valid_configuration(root: Path, verb: str) -> None:
    command = [sys.executable, "-m", f"jobs.{verb}", "--config", f"jobs/{verb}.yaml", "--print_config"]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
