"""Pipelines: steps in order, connected by name, skipped when done; an invalid pipeline is refused before it runs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder, StepResult, run_step
from pipelines.core.workflow import Runner, StepSpec, substitute
from pipelines.operations.pipeline import PipelineConfig, markdown, run_pipeline, with_changes


@dataclasses.dataclass(frozen=True)
class Settings:
    out: str = "runs"
    text: str = ""
    times: int = 1


class Verbs:
    """Two small verbs that record their runs: `write` writes a text, `repeat` repeats the text of another step."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def prepare(self, verb: str, values: Mapping[str, Any]) -> tuple[Any, Runner]:
        if verb not in ("write", "repeat"):
            raise UserError(f"There is no verb {verb!r}.")
        if unknown := set(values) - {field.name for field in dataclasses.fields(Settings)}:
            raise UserError(f"Unknown {unknown}.")
        return Settings(**values), lambda config: self.run(verb, config)

    def run(self, verb: str, config: Settings) -> StepResult:
        def work(folder: StepFolder) -> Mapping[str, Any]:
            self.ran.append(verb)
            text = config.text if verb == "write" else Path(config.text, "text").read_text() * config.times
            storage.write_atomic(folder.child("text"), text.encode())
            return {"rows": len(text), "summary": {"loss": 0.5}}

        return run_step(verb, config, config.out, work)


def pipeline(tmp_path: Path, **changes: Any) -> PipelineConfig:
    steps = {
        "first": StepSpec("write", {"text": "${word}!"}),
        "second": StepSpec("repeat", {"text": "${first}", "times": 2}),
    }
    return dataclasses.replace(PipelineConfig(steps, {"word": "lion"}, out=str(tmp_path)), **changes)


def test_a_step_reads_the_result_of_an_earlier_step(tmp_path: Path) -> None:
    result = run_pipeline(pipeline(tmp_path), Verbs().prepare)
    assert Path(result.summary["results"]["second"], "text").read_text() == "lion!lion!"
    assert "| second | repeat |" in Path(result.summary["report"]).read_text()


def test_a_second_run_skips_every_step_and_keeps_the_report(tmp_path: Path) -> None:
    verbs = Verbs()
    first = run_pipeline(pipeline(tmp_path), verbs.prepare)
    report = Path(first.summary["report"]).read_text()
    second = run_pipeline(pipeline(tmp_path), verbs.prepare)
    assert verbs.ran == ["write", "repeat"]
    assert (first.skipped, second.skipped, second.summary["skipped_steps"]) == (False, True, 2)
    assert Path(second.summary["report"]).read_text() == report


def test_a_change_runs_only_the_steps_that_depend_on_it(tmp_path: Path) -> None:
    verbs = Verbs()
    run_pipeline(pipeline(tmp_path), verbs.prepare)
    result = run_pipeline(pipeline(tmp_path, set=["second.times=3"]), verbs.prepare)
    assert verbs.ran == ["write", "repeat", "repeat"]
    assert result.summary["skipped_steps"] == 1


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"steps": {"a": StepSpec("write", {"text": "${nobody}"})}}, "nobody"),
        ({"steps": {"a": StepSpec("repeat", {"text": "${b}"}), "b": StepSpec("write")}}, "neither an earlier step"),
        ({"steps": {"word": StepSpec("write")}}, "both a step and a variable"),
        ({"steps": {"a": StepSpec("write", {"txt": ""})}}, "Unknown"),
        ({"steps": {"a": StepSpec("fly")}}, "no verb 'fly'"),
        ({"steps": {}}, "no steps"),
        ({"set": ["third.times=3"]}, "names no step"),
        ({"set": ["second"]}, "step.field=value"),
    ],
)
def test_a_wrong_pipeline_is_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    verbs = Verbs()
    with pytest.raises(UserError, match=sentence):
        run_pipeline(pipeline(tmp_path, **changes), verbs.prepare)
    assert verbs.ran == []


def test_changes_reach_nested_fields_with_their_types(tmp_path: Path) -> None:
    changed = with_changes(pipeline(tmp_path, set=["second.tagger.threshold=0.5", "second.names=[a, b]"]))
    assert changed.steps["second"].config["tagger"] == {"threshold": 0.5}
    assert changed.steps["second"].config["names"] == ["a", "b"]


def test_braces_that_are_no_reference_stay() -> None:
    assert substitute({"a": ["${x}/${y}", "{text}", 3]}, {"x": "/data"}) == {"a": ["/data/${y}", "{text}", 3]}


def test_the_report_shows_the_evidence_before_the_numbers() -> None:
    outcome = {"name": "comparison", "step": "compare", "skipped": False, "seconds": 3.0, "path": "x",
               "evidence": "one seed: a hint", "pope.f1.dynamic-static": 0.087}  # fmt: skip
    assert "| one seed: a hint, pope.f1.dynamic-static 0.087 |" in markdown([outcome])
