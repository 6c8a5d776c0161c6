"""The command line of all verbs: a JSON line on stdout, exit codes, and suggestions for unknown keys."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

VERB = '''
import dataclasses, sys
from jobs.cli import main
from pipelines.core.errors import DataRefused, UserError
from pipelines.core.steps import StepResult

@dataclasses.dataclass(frozen=True)
class Source:
    """A source."""
    kind: str = "coco"
    """Its format."""

@dataclasses.dataclass(frozen=True)
class Settings:
    """Does one thing."""
    source: Source = dataclasses.field(default_factory=Source)
    end: str = "well"
    """How it ends."""
    margin: float = 1.0
    """A number."""

    def __post_init__(self):
        if self.margin < 0:
            raise UserError(f"margin is {self.margin}; set it to 0 or more.")

def run(settings):
    print("a library prints this")
    if settings.end == "mistake":
        raise UserError("The path is wrong; give another.")
    if settings.end == "refused":
        raise DataRefused("3 of 10 rows are bad.")
    if settings.end == "crash":
        raise RuntimeError("boom")
    return StepResult("verb", "/somewhere", False, {"rows": 3, "kind": settings.source.kind})

main("verb", Settings, run)
'''


@pytest.fixture
def verb(tmp_path: Path) -> Path:
    path = tmp_path / "verb.py"
    path.write_text(VERB)
    return path


def call(root: Path, verb: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(verb), *options]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, cwd=verb.parent)


def test_stdout_is_one_json_line_whatever_libraries_print(root: Path, verb: Path) -> None:
    done = call(root, verb)
    assert done.returncode == 0
    line = {"step": "verb", "path": "/somewhere", "skipped": False, "rows": 3, "kind": "coco"}
    assert [json.loads(text) for text in done.stdout.splitlines()] == [line]
    assert "a library prints this" in done.stderr


def test_a_value_that_the_configuration_refuses_ends_with_its_sentence(root: Path, verb: Path) -> None:
    done = call(root, verb, "--margin", "-1")
    assert done.returncode == 2
    assert "margin is -1.0; set it to 0 or more." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("end, code", [("mistake", 2), ("refused", 3), ("crash", 1)])
def test_exit_codes(root: Path, verb: Path, end: str, code: int) -> None:
    done = call(root, verb, "--end", end)
    assert done.returncode == code
    assert done.stdout == ""
    assert ("Traceback" in done.stderr) == (end == "crash")


@pytest.mark.parametrize(
    "yaml, options, nearest",
    [
        ("", ["--sorce.kind", "vqa"], "source.kind"),
        ("margn: 2.0", [], "margin"),
        ("source: {knd: vqa}", [], "source.kind"),
    ],
)
def test_an_unknown_key_suggests_the_most_similar_one(
    root: Path, verb: Path, yaml: str, options: list[str], nearest: str
) -> None:
    (verb.parent / "config.yaml").write_text(yaml)
    arguments = ["--config", "config.yaml"] if yaml else []
    done = call(root, verb, *arguments, *options)
    assert done.returncode == 2
    assert f"Did you mean {nearest}?" in done.stderr


def test_options_override_the_file(root: Path, verb: Path) -> None:
    (verb.parent / "config.yaml").write_text("source: {kind: vqa}")
    done = call(root, verb, "--config", "config.yaml", "--source.kind", "pope")
    assert json.loads(done.stdout)["kind"] == "pope"


def test_yaml_cannot_create_objects(root: Path, verb: Path) -> None:
    marker = verb.parent / "owned"
    (verb.parent / "config.yaml").write_text(f"end: !!python/object/apply:os.system ['touch {marker}']")
    done = call(root, verb, "--config", "config.yaml")
    assert done.returncode == 2
    assert not marker.exists()


def test_the_package_lists_every_verb_with_a_line(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "jobs"], capture_output=True, text=True, cwd=root, check=True)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[2:])
    modules = {path.stem for path in (root / "jobs").glob("*.py")} - {"__init__", "__main__", "cli"}
    assert set(lines) == modules
    assert all(10 < len(text) < 100 for text in lines.values())
