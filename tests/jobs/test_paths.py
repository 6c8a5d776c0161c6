"""Every verb's configuration: what is a path says so, and means the same in every process."""

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
# What a name or an explanation says of a path. Each other field that says so is listed with why it is none.
_LOOKS = re.compile(
    r"\b(folders?|files?|path|URI|models:/)\b|(^|_)(path|file|dir|folder|uri|images?|annotations)$", re.IGNORECASE
)
_NO_PATHS = {
    "InstructionSet.kind": "a format's name",
    "InstructionSet.split": "the name of a split",
    "InstructionSet.collection": "the name of a collection",
    "SourceConfig.kind": "a format's name",
    "SourceConfig.collection": "the name of a collection",
    "StepSpec.config": "a configuration of its own, made typed when the step is built",
    "DoctorConfig.settings": "the same",
    "SubmitConfig.command": "a command line, which its own parser reads",
    "RegistryConfig.tracking_uri": "an address of MLflow's own kind, such as sqlite:///mlflow.db",
    "FetchConfig.names": "names in the catalog",
}


def config_of(verb: str) -> Any:
    kind: Any = typing.get_type_hints(importlib.import_module(f"jobs.{verb}").run)["config"]
    return kind


def configurations(kind: type) -> Iterator[type]:
    """A configuration and all inside it."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from configurations(part)


def explained(kind: type) -> dict[str, str]:
    """The explanations of a configuration's own fields."""
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
            says = _LOOKS.search(field.name) or _LOOKS.search(texts.get(field.name, ""))
            assert not says or f"{kind.__name__}.{field.name}" in _NO_PATHS, (
                f"{kind.__name__}.{field.name} looks like a path ({says and says[0]!r}); make it with path_field, or "
                "say in _NO_PATHS why it is none"
            )


def _leaves(hint: Any) -> set[Any]:
    arguments = typing.get_args(hint)
    return {hint} if not arguments else set().union(*map(_leaves, arguments))


def test_the_list_of_what_is_no_path_is_of_today() -> None:
    kinds = {kind.__name__: kind for verb in VERBS for kind in configurations(config_of(verb))}
    for name in _NO_PATHS:
        kind, _, field = name.partition(".")
        text = explained(kinds[kind]).get(field, "")
        assert _LOOKS.search(field) or _LOOKS.search(text), name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder of each name that stands for a model or a variable."""
    monkeypatch.chdir(tmp_path)
    for name in ("ram", "encoder", "minilm", "stage1", "images"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_relative_paths_become_absolute_wherever_they_stand(here: Path) -> None:
    source = ["--source.kind", "folder", "--source.images", "images", "--tagger.path", "ram"]
    config = parse("precompute", config_of("precompute"), [*source, "--captioner.path", "org/name"])
    assert (config.source.images, config.tagger.path, config.out) == tuple(
        str(here / name) for name in ("images", "ram", "runs")
    )
    assert config.captioner.path == "org/name"  # no folder here: a name of the hub
    sets = [{"name": "a", "kind": "refcoco", "annotations": "refs.p", "instances": "~/i.json", "images": "s3://b/i"}]
    (entry,) = from_values("instructions", config_of("instructions"), {"tagged": "t", "sets": sets}).sets
    assert entry.annotations == str(here / "refs.p")
    assert entry.instances == str(Path("~/i.json").expanduser())
    assert entry.images == "s3://b/i"
    page = parse("demo_page", config_of("demo_page"), ["--models", "{a: encoder, b: 'models:/x@y'}", "--tagger", "ram"])
    assert page.models == {"a": str(here / "encoder"), "b": "models:/x@y"}
    assert page.tagger == str(here / "ram")


def test_free_mappings_of_a_training_are_walked_by_its_fields(here: Path) -> None:
    training = {"data": "tagged", "base": "minilm", "loop": {"steps": 3}, "registry": {"artifact_location": "mlruns"}}
    space = {"base": {"choice": ["encoder", "tiny"]}, "margin": {"choice": [0.5, 1.0]}}
    config = from_values("sweep", config_of("sweep"), {"training": training, "space": space, "out": "out"})
    assert config.training == {
        "data": str(here / "tagged"), "base": "minilm", "loop": {"steps": 3},
        "registry": {"artifact_location": str(here / "mlruns")},
    }  # fmt: skip
    assert config.space == {"base": {"choice": [str(here / "encoder"), "tiny"]}, "margin": {"choice": [0.5, 1.0]}}
    stages = {"stage1": {"train": {"parents": "encoder"}}, "stage3": {"train": {"parents": ["stage1", "encoder"]}}}
    arms = {"static": {}, "dynamic": {"tag_encoder": "encoder", "parents": ["stage1"]}}
    values = {"data": "d", "tagged": "/t/", "test_data": "file:///x", "stages": stages, "arms": arms}
    compared = from_values("compare", config_of("compare"), values)
    encoder = str(here / "encoder")
    assert compared.stages["stage3"].train == {"parents": ["stage1", encoder]}  # an earlier stage, whatever lies here
    assert compared.arms == {"static": {}, "dynamic": {"tag_encoder": encoder, "parents": ["stage1"]}}
    assert (compared.data, compared.tagged, compared.test_data) == (str(here / "d"), "/t/", "file:///x")


def test_a_pipelines_steps_are_made_absolute_when_they_are_built(here: Path) -> None:
    values = {"source": {"images": "${images}"}, "tagger": {"path": "ram"}, "out": "${out}"}
    config, _ = prepare("precompute", values)
    assert (config.source.images, config.out) == ("${images}", "${out}")
    assert config.tagger.path == str(here / "ram")


def test_what_is_absolute_keeps_every_letter_and_its_hash(here: Path) -> None:
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
def test_the_doctor_looks_for_every_input(here: Path, verb: str, values: dict[str, Any], field: str) -> None:
    findings = [one for one in job_findings(verb, values, prepare, [{"CPU": 8.0}]) if one.about == f"{verb}: inputs"]
    assert [finding.message.split(":")[0] for finding in findings] == [field]
    assert "does not exist" in findings[0].message


def test_names_of_a_hub_and_web_addresses_are_not_missed(here: Path) -> None:
    values = {"kind": "lion", "checkpoint": "/", "qformer_tokenizer": "bert-base-uncased"}
    assert [one.state for one in job_findings("convert", values, prepare, [])] == ["ok", "ok"]
    asked = {"model": "/", "image": ["https://example.org/a.jpg"]}
    assert [one.state for one in job_findings("predict", asked, prepare, [])] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["predict", "--model", "s3://b/m", "--image", "s3://b/i", "--tagger", "ram"], "tagger (ram)"),
        (["demo_page", "--models", "{a: encoder}"], "models.a (encoder)"),
        (["sweep", "--training.data", "images"], "training.data (images)"),
        (["pipeline", "--set", "[tag_encoder.base=encoder]"], "steps.tag_encoder.config.base (encoder)"),
    ],
)
def test_what_lies_on_this_machine_alone_is_not_submitted(here: Path, words: list[str], field: str, root: Path) -> None:
    job = make_job([*words, "--out", "s3://b/runs"])
    with pytest.raises(UserError, match=re.escape(field)):
        require_portable(job, ["pipelines/sample_world/backbones/weights/card.json"])


def test_small_configuration_files_are_sent_with_the_job(here: Path, root: Path) -> None:
    assert sent_options(config_of("doctor")) == ["--file", "--cost.rates"]
    (here / "rates.yaml").write_text("precompute: 3")
    words = ["doctor", "--cost.rates", "rates.yaml", "--out", "s3://b/runs"]
    job = make_job(words)
    require_portable(job, [])
    package = make_package(job.arguments, here / "package", options=sent_options(config_of("doctor")))
    (sent,) = [word for word in package.arguments if "rates-" in word]
    assert (package.folder / sent).read_text() == "precompute: 3"


def test_places_are_named_by_their_dotted_fields() -> None:
    config = from_values("sweep", config_of("sweep"), {"training": {"data": "/d", "base": "tiny"}, "out": "/o"})
    places = {(place.field, place.role) for place in config_paths(config)}
    assert places == {("training.data", "input"), ("out", "output")}
