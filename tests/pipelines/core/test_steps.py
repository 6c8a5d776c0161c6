"""Steps: a finished step is skipped, the hash covers what determines the result, the manifest proves completion."""

import dataclasses
import json
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder, StepResult, fingerprint, read_manifest, run_step, runtime_field


@dataclasses.dataclass(frozen=True)
class Settings:
    data: str = ""
    margin: float = 1.0
    actors: int = runtime_field(2)


def count(folder: StepFolder) -> Mapping[str, Any]:
    storage.write_atomic(folder.child("part.txt"), b"x")
    return {"rows": 7, "files": [{"path": "part.txt", "rows": 7, "sha256": "0"}], "summary": {"quarantined": 1}}


def run(tmp_path: Path, settings: Settings, inputs: dict[str, str] | None = None) -> StepResult:
    return run_step("count", settings, str(tmp_path / "out"), count, inputs)


def test_a_finished_step_run_again_does_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, Settings())
    written = Path(first.path, "part.txt").stat().st_mtime_ns
    second = run(tmp_path, Settings())
    assert (first.skipped, second.skipped) == (False, True)
    assert second.path == first.path
    assert Path(first.path, "part.txt").stat().st_mtime_ns == written
    assert json.loads(second.as_json()) == {
        "step": "count", "path": first.path, "skipped": True, "rows": 7, "quarantined": 1,
    }  # fmt: skip


def test_the_folders_name_depends_only_on_what_determines_the_result(tmp_path: Path) -> None:
    base = run(tmp_path, Settings()).path
    assert run(tmp_path, Settings(margin=0.5)).path != base
    assert run(tmp_path, Settings(actors=9)).path == base
    assert run(tmp_path, Settings(margin=1)).path == base  # as in a YAML file with an integer


def test_an_input_is_identified_by_its_content_not_its_path(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    paths = {n: run(tmp_path, Settings(data=n), {"data": str(tmp_path / n)}).path for n in "abc"}
    assert paths["a"] == paths["b"] != paths["c"]


def test_a_step_that_fails_leaves_no_manifest_and_can_be_run_again(tmp_path: Path) -> None:
    def fail(folder: StepFolder) -> Mapping[str, Any]:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        run_step("count", Settings(), str(tmp_path), fail)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UserError, match="not finished"):
        fingerprint(str(folder))
    assert not run_step("count", Settings(), str(tmp_path), count).skipped


def test_the_manifest_has_inputs_configuration_versions_and_commit(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("rows")
    manifest = read_manifest(run(tmp_path, Settings(), {"data": str(tmp_path / "data")}).path)
    assert manifest["inputs"]["data"]["digest"] == storage.sha256(str(tmp_path / "data"))
    assert manifest["config"] == {"margin": 1.0}
    assert manifest["versions"]["python"].startswith("3.11")
    assert manifest["git_commit"]


def test_a_step_is_an_input_by_the_digest_of_its_manifest(tmp_path: Path) -> None:
    first = run(tmp_path, Settings())
    assert fingerprint(first.path) == read_manifest(first.path)["digest"]


@pytest.mark.parametrize("path", ["nowhere", "nowhere/at/all.parquet"])
def test_a_missing_input_is_a_user_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path, Settings(), {"data": str(tmp_path / path)})


def _hold(out: str, started: Any, release: Any) -> None:
    def wait(folder: StepFolder) -> Mapping[str, Any]:
        started.set()
        release.wait(30)
        return count(folder)

    run_step("count", Settings(), out, wait)


def test_two_processes_never_run_the_same_step(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "out"), started, release))
    other.start()
    assert started.wait(30)
    with pytest.raises(UserError, match="Another process"):
        run(tmp_path, Settings())
    release.set()
    other.join(30)
    assert run(tmp_path, Settings()).skipped
