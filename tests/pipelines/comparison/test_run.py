"""A whole comparison with tiny models and a real MLflow: steps, report, champion, and resuming after a kill."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline import prepare
from pipelines.comparison.champion import Decision
from pipelines.comparison.config import ChampionRule, CompareConfig, StageSpec
from pipelines.comparison.plan import Run
from pipelines.comparison.run import NUMBERS, REPORT, compare
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import StepResult
from pipelines.registry import Registry
from tests.pipelines.comparison.conftest import World, make_config


@pytest.fixture(scope="module")
def config(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    return make_config(world, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def finished(config: CompareConfig) -> StepResult:
    return compare(config, prepare)


def test_a_comparison_leaves_its_numbers_and_a_page(finished: StepResult, config: CompareConfig) -> None:
    assert finished.summary["trainings"] == 4
    document = storage.read_json(storage.join(finished.path, NUMBERS))
    assert set(document["groups"]) == {"caption", "vqa", "rec", "pope"}
    vqa = document["groups"]["vqa"]
    assert (vqa["questions"], vqa["images"], len(vqa["arms"]["static"]["by_seed"])) == (6, 6, 2)
    assert [level["strength"] for level in vqa["noise"]] == [0.0, 1.0]
    assert vqa["noise"][0]["arms"]["dynamic"]["value"] == vqa["arms"]["dynamic"]["value"]
    assert (document["tests"], document["evidence"]) == (0, "two seeds: a hint")
    assert finished.summary["evidence"] == "two seeds: a hint"  # the summary is the last line of stdout
    page = storage.read_bytes(storage.join(finished.path, REPORT)).decode()
    assert {arm: settings[0]["num_beams"] for arm, settings in document["decoding"].items()} == {
        "static": 1,
        "dynamic": 1,
    }
    assert document["decoding"]["static"][0]["repetition_penalty"] == 1.5  # LION's own
    assert "All models decoded with num_beams 1," in page
    assert page.count("data:image/jpeg;base64,") >= 4
    assert page.count("<svg") > 4
    assert "loop:" in page  # the configuration
    assert not re.search(r"<script|<link|@import|src=\"(?!data:)|href=\"(?!#)", page)  # the page loads nothing
    assert set(re.findall(r"https?://([\w.]+)", page)) <= {"www.w3.org"}  # XML's names of SVG


def test_a_finished_comparison_does_nothing(finished: StepResult, config: CompareConfig) -> None:
    again = compare(config, prepare)
    assert again.skipped
    assert again.path == finished.path


def test_separate_processes_give_the_same_numbers(finished: StepResult, config: CompareConfig, tmp_path: Path) -> None:
    parallel = compare(dataclasses.replace(config, at_once=2, out=str(tmp_path)), prepare)
    groups = [storage.read_json(storage.join(result.path, NUMBERS))["groups"] for result in (finished, parallel)]
    assert groups[0] == groups[1]
    # The hash of an evaluation contains its model's version, which depends on the order in which trainings end.
    assert folders(parallel, "train_stage-*") == folders(finished, "train_stage-*")


def folders(result: StepResult, pattern: str) -> set[str]:
    """Return the names of the steps' folders next to a result."""
    return {path.name for path in Path(result.path).parent.glob(pattern)}


def test_a_killed_comparison_resumes_without_training_again(
    finished: StepResult, config: CompareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = storage.read_json(storage.join(finished.path, NUMBERS))
    Path(finished.path, "manifest.json").unlink()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr("pipelines.training.loop.train", never)
    monkeypatch.setattr("pipelines.inference.answerer.Answerer.__init__", never)
    again = compare(config, prepare)
    assert not again.skipped
    assert storage.read_json(storage.join(again.path, NUMBERS)) == document


def test_all_numbers_are_on_the_versions_in_mlflow(finished: StepResult, config: CompareConfig) -> None:
    registry = Registry(config.registry, config.out)
    versions = registry.client.search_model_versions("name = 'lion-stage1'")
    by_run = {Run(v.tags["compare.arm"], int(v.tags["compare.seed"])): v.tags for v in versions}
    assert set(by_run) == {Run(arm, seed) for arm in ("static", "dynamic") for seed in (0, 1)}
    document = storage.read_json(storage.join(finished.path, NUMBERS))
    tags = by_run[Run("dynamic", 1)]
    effect = document["groups"]["rec"]["effects"]["dynamic"]
    assert json.loads(tags["compare.decoding"]) == document["decoding"]["dynamic"][0]
    assert tags["compare.rec.acc_at_0.5.difference.value"] == repr(effect["value"])
    assert tags["compare.evidence"] == run_tags(registry)["evidence"] == "two seeds: a hint"
    assert not [name for name in tags if name.endswith((".p", ".p_holm"))]
    assert "evaluate.mixed.tag_noise_1.rec.acc_at_0.5" in tags
    run = registry.client.search_runs(["1"], "attributes.run_name = 'compare'")[0]
    assert {file.path for file in registry.client.list_artifacts(run.info.run_id)} == {NUMBERS, REPORT}
    assert run.data.metrics["dynamic/rec.acc_at_0.5.value"] == document["groups"]["rec"]["arms"]["dynamic"]["value"]


def run_tags(registry: Registry) -> dict[str, str]:
    """Return the tags of the comparison's run in MLflow."""
    tags: dict[str, str] = registry.client.search_runs(["1"], "attributes.run_name = 'compare'")[0].data.tags
    return tags


def test_each_arms_first_model_has_the_arms_name_as_alias(finished: StepResult, config: CompareConfig) -> None:
    client = Registry(config.registry, config.out).client
    for arm in config.arms:
        tags = client.get_model_version_by_alias("lion-stage1", arm).tags
        assert (tags["compare.arm"], int(tags["compare.seed"])) == (arm, config.seeds[0])
    document = storage.read_json(storage.join(finished.path, NUMBERS))
    assert finished.summary["static.vqa.soft_accuracy"] == document["groups"]["vqa"]["arms"]["static"]["value"]


def champion(config: CompareConfig) -> str | None:
    aliases = Registry(config.registry, config.out).client.get_registered_model("lion-stage1").aliases
    return str(aliases["champion"]) if "champion" in aliases else None


def decision(result: StepResult) -> Decision:
    return Decision(**storage.read_json(storage.join(result.path, NUMBERS))["champion"])


def test_the_first_comparison_names_a_champion_and_a_worse_candidate_does_not_replace_it(
    finished: StepResult, config: CompareConfig
) -> None:
    first = decision(finished)
    assert first.moved
    assert first.candidate == f"models:/lion-stage1/{champion(config)}"
    assert first.reason == "two seeds: a hint, alias set because allow_one_seed: no version had the alias @champion"
    client = Registry(config.registry, config.out).client
    assert client.get_model_version_by_alias("lion-stage1", "champion").tags["champion.evidence"] == first.evidence
    # No candidate can reach this margin: the best arm by another metric challenges the champion and is refused.
    rule = ChampionRule(metric="caption.CIDEr", margin=10.0, allow_one_seed=True)
    other = next(version for version in ("1", "2", "3", "4") if version != first.candidate.rpartition("/")[2])
    Registry(config.registry, config.out).set_alias("lion-stage1", "champion", int(other))
    refused = decision(compare(dataclasses.replace(config, champion=rule), prepare))
    assert not refused.moved
    if refused.champion != refused.candidate:
        assert "margin 10" in refused.reason
    assert champion(config) == other


def test_two_seeds_alone_move_no_champion(
    finished: StepResult, config: CompareConfig, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(config.registry, config.out)
    before = champion(config)
    rule = dataclasses.replace(config.champion, allow_one_seed=False, alias="best")
    with caplog.at_level("WARNING", "lion.compare"):
        first = decision(result := compare(dataclasses.replace(config, champion=rule), prepare))
    assert "two seeds: a hint: no verdicts and no p-values, and the alias @best does not move" in caplog.text
    assert not first.moved
    assert first.reason.startswith("two seeds: a hint, and no alias moves on fewer than 3 seeds")
    assert "best" not in registry.client.get_registered_model("lion-stage1").aliases
    assert champion(config) == before
    assert result.summary["champion"] is None
    page = storage.read_bytes(storage.join(result.path, REPORT)).decode()
    assert "does not become</b> @best: two seeds: a hint" in page


def test_a_rule_whose_metric_is_not_measured_is_refused_before_training(config: CompareConfig, tmp_path: Path) -> None:
    wrong = dataclasses.replace(config, champion=ChampionRule(metric="vqa.f1"), out=str(tmp_path))
    with pytest.raises(UserError, match=r"is not measured.*use one of .*vqa\.soft_accuracy"):
        compare(wrong, prepare)
    assert not list(tmp_path.glob("train_stage-*"))


def test_more_trainings_than_the_cluster_has_room_for_are_refused_before_training(
    config: CompareConfig, ray_cluster: None, tmp_path: Path
) -> None:
    train = {**config.stages["stage1"].train, "launch": {"workers": 2, "cpus_per_worker": 3}}
    wrong = dataclasses.replace(config, stages={"stage1": StageSpec(train)}, at_once=2, out=str(tmp_path))
    with pytest.raises(UserError, match="room for 1 trainings of 2 workers with 3 CPUs"):
        compare(wrong, prepare)
    assert not list(tmp_path.glob("train_stage-*"))
