"""Configuration files that include others: what overrides what, the order of steps, and clear errors."""

from pathlib import Path

import pytest
import yaml

from jobs.cli import parse
from pipelines.core.config_files import read_config, resolved_text
from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import DoctorConfig
from pipelines.operations.doctor.run import job_values
from pipelines.operations.pipeline import PipelineConfig

FILES = {
    "shared/base.yaml": """
        variables: {images: base, seed: base}
        steps:
          world: {verb: sample_world, config: {images: 600, splits: [train, test], preset: null}}
          questions: {verb: instructions}
          untrained: {verb: evaluate}
    """,
    "shared/more.yaml": "{include: base.yaml, variables: {images: more}}",
    "top.yaml": """
        include: shared/more.yaml
        variables: {seed: top}
        steps:
          tagged: {verb: precompute}
          world: {config: {splits: [train]}}
          margins: {verb: sweep}
          questions: {}
          untrained: null
          projector: {verb: sweep}
    """,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_file_overrides_what_it_includes_at_any_depth(folder: Path) -> None:
    document = read_config(str(folder / "top.yaml"))
    assert document["variables"] == {"images": "more", "seed": "top"}
    # A list is replaced; null stays a value everywhere but in place of a step.
    world = {"verb": "sample_world", "config": {"images": 600, "splits": ["train"], "preset": None}}
    assert document["steps"]["world"] == world
    assert "include" not in document


def test_new_steps_come_before_the_step_that_follows_them_in_the_file(folder: Path) -> None:
    steps = read_config(str(folder / "top.yaml"))["steps"]
    assert list(steps) == ["tagged", "world", "margins", "questions", "projector"]
    assert steps["questions"] == {"verb": "instructions"}


def test_later_files_of_a_list_override_earlier_ones(folder: Path) -> None:
    (folder / "list.yaml").write_text("include: [shared/more.yaml, shared/base.yaml]")
    assert read_config(str(folder / "list.yaml"))["variables"]["images"] == "base"


def test_a_file_without_include_is_read_as_it_is(folder: Path) -> None:
    path = folder / "plain.yaml"
    path.write_text("steps: {a: null}")
    assert read_config(str(path)) == {"steps": {"a": None}}
    assert resolved_text(str(path)) is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("include: nothing.yaml", r"bad\.yaml includes .*nothing\.yaml, which cannot be read"),
        ("include: bad.yaml", r"bad\.yaml includes .*bad\.yaml: files include each other"),
        ("include: cycle.yaml", r"bad\.yaml includes .*cycle\.yaml includes .*bad\.yaml: files include each other"),
        ("include: {a: 1}", r"bad\.yaml: include is \{'a': 1\}, but must be the path"),
        ("include: [1]", r"bad\.yaml: include is \[1\], but must be the path"),
        ("include: list.yaml", r"list\.yaml has no mapping of keys, but .*bad\.yaml includes it"),
        ("include: broken.yaml", r"broken\.yaml is not valid YAML"),
    ],
)  # fmt: skip
def test_a_wrong_include_is_a_sentence(folder: Path, text: str, message: str) -> None:
    (folder / "cycle.yaml").write_text("include: bad.yaml")
    (folder / "list.yaml").write_text("[1, 2]")
    (folder / "broken.yaml").write_text("{a: [")
    path = folder / "bad.yaml"
    path.write_text(text)
    for function in (read_config, resolved_text):
        with pytest.raises(UserError, match=message):
            function(str(path))


def test_the_command_line_resolves_includes_and_its_options_override(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(folder / "top.yaml"), "--variables.seed", "7"]
    config = parse("pipeline", PipelineConfig, words)
    assert list(config.steps) == ["tagged", "world", "margins", "questions", "projector"]
    assert config.variables == {"images": "more", "seed": "7"}
    with pytest.raises(SystemExit):
        parse("pipeline", PipelineConfig, [*words, "--print_config"])
    assert list(yaml.safe_load(capsys.readouterr().out)["steps"]) == list(config.steps)


def test_the_command_line_refuses_a_wrong_include(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text("include: nothing.yaml")
    with pytest.raises(SystemExit, match="2"):
        parse("pipeline", PipelineConfig, ["--config", str(folder / "bad.yaml")])
    assert "nothing.yaml, which cannot be read" in capsys.readouterr().err


def test_the_doctor_reads_included_files(folder: Path) -> None:
    values = job_values(DoctorConfig(verb="pipeline", file=str(folder / "top.yaml")))
    assert list(values["steps"]) == ["tagged", "world", "margins", "questions", "projector"]


def test_the_pipelines_on_the_sample_world_run_the_same_steps(root: Path) -> None:
    demo, compare, sweep = (
        read_config(str(root / "jobs" / name))["steps"]
        for name in ("pipeline.yaml", "pipelines/compare.yaml", "pipelines/sweep.yaml")
    )
    assert list(demo) == [
        "world", "tagged", "tagged_test", "tag_encoder", "questions", "test_questions", "start_image", "start_region",
        "untrained", "comparison",
    ]  # fmt: skip
    assert list(compare) == [name for name in demo if name != "untrained"]
    assert list(sweep) == ["world", "tagged", "margins", "questions", "start_image", "projector"]
    for name in ("world", "tagged", "questions", "start_image"):
        assert demo[name] == compare[name] == sweep[name]
