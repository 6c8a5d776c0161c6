"""Paths in configurations: every path field is marked, and relative paths become absolute."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import from_values, parse
from jobs.pipeline import prepare
from jobs.submit import make_job
from pipelines.core.errors import UserError
from pipelines.core.paths import config_paths, sent_options, with_absolute_paths
from pipelines.operations.doctor.job import job_findings
from pipelines.operations.submission.job import require_portable
from pipelines.operations.submission.package import make_package

JOBS = Path(__file__).parents[2] / "jobs"
VERBS = sorted({path.stem for path in JOBS.glob("*.py")} - {"__init__", "__main__", "cli"})
# Words in the name or description of a field that suggest a path. `_NO_PATHS` lists the exceptions with the reason.
_LOOKS = re.compile(
    r"\b(folders?|files?|path|URI|models:/)\b|(^|_)(path|file|dir|folder|uri|images?|annotations)$", re.IGNORECASE
)
_NO_PATHS = {
    "InstructionSet.kind": "a format's name",
    "InstructionSet.split": "the name of a split",
    "InstructionSet.collection": "the name of a collection",
    "InstructionSet.tasks": "names of tasks",
    "TrainTagEncoderConfig.loss": "a registered name, or module:function",
    "SourceConfig.kind": "a format's name",
    "StepSpec.config": "another verb's configuration, checked when the step is built",
    "DoctorConfig.settings": "another verb's configuration",
    "SubmitConfig.command": "a command line, parsed separately",
    "RegistryConfig.tracking_uri": "an MLflow address, such as sqlite:///mlflow.db",
    "FetchConfig.names": "names in the catalog",
}


def config_of(verb: str) -> Any:
    kind: Any = typing.get_type_hints(importlib.import_module(f"jobs.{verb}").run)["config"]
    return kind


def configurations(kind: type) -> Iterator[type]:
    """Yield a configuration type and all nested ones."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from configurations(part)


def explained(kind: type) -> dict[str, str]:
    """Return the docstrings of a configuration's fields, without inherited ones."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: doc.value.value
        for field, doc in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str)
    }  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_that_looks_like_a_path_is_marked(verb: str) -> None:
    for kind in configurations(config_of(verb)):
        texts = explained(kind)
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.metadata.keys() & {"path", "settings_of"} or str not in _leaves(hints[field.name]):
                continue
            match = _LOOKS.search(field.name) or _LOOKS.search(texts.get(field.name, ""))
            assert not match or f"{kind.__name__}.{field.name}" in _NO_PATHS, (
                f"{kind.__name__}.{field.name} looks like a path ({match and match[0]!r}); declare it with path_field, "
                "or add it to _NO_PATHS with the reason"
            )


def _leaves(hint: Any) -> set[Any]:
    arguments = typing.get_args(hint)
    return {hint} if not arguments else set().union(*map(_leaves, arguments))


def test_every_exception_is_still_needed() -> None:
    kinds = {kind.__name__: kind for verb in VERBS for kind in configurations(config_of(verb))}
    for name in _NO_PATHS:
        kind, _, field = name.partition(".")
        text = explained(kinds[kind]).get(field, "")
        assert _LOOKS.search(field) or _LOOKS.search(text), name


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a directory that has folders with the names of models and variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("ram", "encoder", "minilm", "stage1", "images"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_relative_paths_become_absolute_in_all_fields(workdir: Path) -> None:
    source = ["--source.kind", "folder", "--source.images", "images", "--tagger.path", "ram"]
    config = parse("precompute", config_of("precompute"), [*source, "--captioner.path", "org/name"])
    assert (config.source.images, config.tagger.path, config.out) == tuple(
        str(workdir / name) for name in ("images", "ram", "runs")
    )
    assert config.captioner.path == "org/name"  # no such folder: a name on the hub
    sets = [{"name": "a", "kind": "refcoco", "annotations": "refs.p", "instances": "~/i.json", "images": "s3://b/i"}]
    (entry,) = from_values("instructions", config_of("instructions"), {"tagged": "t", "sets": sets}).sets
    assert entry.annotations == str(workdir / "refs.p")
    assert entry.instances == str(Path("~/i.json").expanduser())
    assert entry.images == "s3://b/i"
    page = parse("demo_page", config_of("demo_page"), ["--models", "{a: encoder, b: 'models:/x@y'}", "--tagger", "ram"])
    assert page.models == {"a": str(workdir / "encoder"), "b": "models:/x@y"}
    assert page.tagger == str(workdir / "ram")


def test_free_mappings_of_a_training_are_visited_by_its_fields(workdir: Path) -> None:
    training = {"data": "tagged", "base": "minilm", "loop": {"steps": 3}, "registry": {"artifact_location": "mlruns"}}
    space = {"base": {"choice": ["encoder", "tiny"]}, "margin": {"choice": [0.5, 1.0]}}
    config = from_values("sweep", config_of("sweep"), {"training": training, "space": space, "out": "out"})
    assert config.training == {
        "data": str(workdir / "tagged"), "base": "minilm", "loop": {"steps": 3},
        "registry": {"artifact_location": str(workdir / "mlruns")},
    }  # fmt: skip
    assert config.space == {"base": {"choice": [str(workdir / "encoder"), "tiny"]}, "margin": {"choice": [0.5, 1.0]}}
    stages = {"stage1": {"train": {"parents": "encoder"}}, "stage3": {"train": {"parents": ["stage1", "encoder"]}}}
    arms = {"static": {}, "dynamic": {"tag_encoder": "encoder", "parents": ["stage1"]}}
    values = {"data": "d", "tagged": "/t/", "test_data": "file:///x", "stages": stages, "arms": arms}
    compared = from_values("compare", config_of("compare"), values)
    encoder = str(workdir / "encoder")
    assert compared.stages["stage3"].train == {"parents": ["stage1", encoder]}  # a stage's name is no path
    assert compared.arms == {"static": {}, "dynamic": {"tag_encoder": encoder, "parents": ["stage1"]}}
    assert (compared.data, compared.tagged, compared.test_data) == (str(workdir / "d"), "/t/", "file:///x")


def test_a_pipelines_steps_are_made_absolute_when_they_are_built(workdir: Path) -> None:
    values = {"source": {"images": "${images}"}, "tagger": {"path": "ram"}, "out": "${out}"}
    config, _ = prepare("precompute", values)
    assert (config.source.images, config.out) == ("${images}", "${out}")
    assert config.tagger.path == str(workdir / "ram")


def test_absolute_paths_stay_unchanged_as_does_the_hash(workdir: Path) -> None:
    from pipelines.core.steps import canonical

    values = {
        "source": {"images": "/a/b/", "annotations": "s3://bucket/c//d.json"}, "tagger": {"path": "file:///ram"},
        "out": "gs://b/runs/", "registry": {"artifact_location": "mlflow-artifacts:/a"},
    }  # fmt: skip
    kind = config_of("precompute")
    del values["registry"]
    written = from_values("precompute", kind, values, absolute=False)
    assert canonical(from_values("precompute", kind, values)) == canonical(written)
    assert with_absolute_paths(written) is written


@pytest.mark.parametrize(
    ("verb", "values", "field"),
    [
        ("predict", {"model": "/", "image": "/", "tagger": "gone"}, "tagger"),
        ("demo_page", {"models": {"a": "gone"}}, "models.a"),
        ("demo_page", {"models": {}, "tagger": "gone"}, "tagger"),
        ("convert", {"kind": "ram", "checkpoint": "/", "thresholds": "gone"}, "thresholds"),
        ("instructions", {"tagged": "/", "sets": [{"name": "a", "kind": "refcoco", "annotations": "/",
                                                    "instances": "gone"}]}, "sets[0].instances"),
        ("sweep", {"training": {"data": "gone"}}, "training.data"),
        ("compare", {"data": "/", "stages": {"s": {"train": {"parents": ["s", "gone"]}}}}, "stages.s.train.parents"),
    ],
)  # fmt: skip
def test_the_doctor_checks_every_input(workdir: Path, verb: str, values: dict[str, Any], field: str) -> None:
    about = f"{verb}: inputs"
    findings = [item for item in job_findings(verb, values, prepare, [{"CPU": 8.0}]) if item.about == about]
    assert [finding.message.split(":")[0] for finding in findings] == [field]
    assert "does not exist" in findings[0].message


def test_names_on_a_hub_and_web_addresses_are_not_reported_missing(workdir: Path) -> None:
    values = {"kind": "lion", "checkpoint": "/", "qformer_tokenizer": "bert-base-uncased"}
    assert [finding.state for finding in job_findings("convert", values, prepare, [])] == ["ok", "ok"]
    question = {"model": "/", "image": ["https://example.org/a.jpg"]}
    assert [finding.state for finding in job_findings("predict", question, prepare, [])] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["predict", "--model", "s3://b/m", "--image", "s3://b/i", "--tagger", "ram"], "tagger (ram)"),
        (["demo_page", "--models", "{a: encoder}"], "models.a (encoder)"),
        (["sweep", "--training.data", "images"], "training.data (images)"),
        (["pipeline", "--set", "[tag_encoder.base=encoder]"], "steps.tag_encoder.config.base (encoder)"),
    ],
)
def test_a_path_of_this_machine_only_is_not_submitted(workdir: Path, words: list[str], field: str, root: Path) -> None:
    job = make_job([*words, "--out", "s3://b/runs"])
    with pytest.raises(UserError, match=re.escape(field)):
        require_portable(job, ["pipelines/sample_world/backbones/weights/card.json"])


def test_small_configuration_files_are_sent_with_the_job(workdir: Path, root: Path) -> None:
    assert sent_options(config_of("doctor")) == ["--file", "--cost.rates"]
    (workdir / "rates.yaml").write_text("precompute: 3")
    words = ["doctor", "--cost.rates", "rates.yaml", "--out", "s3://b/runs"]
    job = make_job(words)
    require_portable(job, [])
    package = make_package(job.arguments, workdir / "package", options=sent_options(config_of("doctor")))
    (sent,) = [word for word in package.arguments if "rates-" in word]
    assert (package.folder / sent).read_text() == "precompute: 3"


def test_paths_have_the_dotted_names_of_their_fields() -> None:
    config = from_values("sweep", config_of("sweep"), {"training": {"data": "/d", "base": "tiny"}, "out": "/o"})
    paths = {(path.field, path.role) for path in config_paths(config)}
    assert paths == {("training.data", "input"), ("out", "output")}
