"""The plan of a comparison: trainings by arm and seed, shared trainings, and configurations that are refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline import prepare
from pipelines.comparison.config import FEWEST_SEEDS, CompareConfig, NoiseCurve, StageSpec
from pipelines.comparison.plan import Run, evaluation, instances, plan_comparison
from pipelines.core.config_files import read_config
from pipelines.core.errors import UserError
from pipelines.core.workflow import merged
from pipelines.evaluation.tag_noise import TagNoise
from tests.pipelines.comparison.conftest import World, make_config


@pytest.fixture
def config(tmp_path: Path) -> CompareConfig:
    """The small comparison, with folders that do not exist: planning opens none."""
    return make_config(World("/data", "/tagged", "/test_data", "/test_tagged", "/lion", "/encoder"), tmp_path)


def test_every_arm_is_trained_with_every_seed(config: CompareConfig) -> None:
    plan = plan_comparison(config, prepare)
    assert set(plan.last) == {Run(arm, seed) for arm in ("static", "dynamic") for seed in (0, 1)}
    for run, name in plan.last.items():
        settings = plan.settings[name]
        assert (settings.prompt.kind, settings.loop.seed, settings.loop.steps) == (run.arm, run.seed, 3)
        assert settings.tag_encoder == (config.tag_encoder if run.arm == "dynamic" else None)
        assert settings.data == config.data


def test_what_the_arms_share_is_trained_once(config: CompareConfig) -> None:
    plain = config.stages["stage1"].train
    shared = {**plain, "prompt": {"kind": "none"}}
    stages = {
        "stage1": StageSpec(shared, once_per="comparison"),
        "stage2": StageSpec({**shared, "stage": 2}, once_per="seed"),
        "stage3": StageSpec({**plain, "stage": 3, "parents": ["stage1", "stage2"]}),
    }
    plan = plan_comparison(dataclasses.replace(config, stages=stages), prepare)
    assert len(plan.trainings) == 1 + 2 + 4
    assert plan.settings["stage1"].prompt.kind == "none"
    last = plan.settings[plan.last[Run("dynamic", 1)]]
    assert last.parent_list == ["${stage1}", "${stage2__seed1}"]
    assert list(plan.trainings)[:3] == ["stage1", "stage2__seed0", "stage2__seed1"]


def test_a_stage_of_an_arm_has_the_arms_earlier_stage_as_parent(config: CompareConfig) -> None:
    plain = config.stages["stage1"].train
    stages = {"first": StageSpec(plain), "second": StageSpec({**plain, "parents": "first"})}
    plan = plan_comparison(dataclasses.replace(config, stages=stages), prepare)
    assert plan.settings["second__static__seed1"].parent_list == ["${first__static__seed1}"]


def test_an_evaluation_has_the_noise_of_its_strength(config: CompareConfig) -> None:
    noisy = dataclasses.replace(config, noise=NoiseCurve(levels=[0.3], drop=0.1, seed=4))
    settings, _ = prepare("evaluate", evaluation(noisy, "models:/lion/1", 0.3).config)
    assert settings.tag_noise == TagNoise(strength=0.3, drop=0.1, seed=4)
    assert (settings.model, settings.data, settings.inference) == ("models:/lion/1", config.test_data, config.inference)


def test_processes_that_run_at_the_same_time_share_the_cores(
    config: CompareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    open_launch = {**config.stages["stage1"].train, "launch": {"launcher": "local", "workers": 2}}
    inference = dataclasses.replace(config.inference, cpus=None)
    both = dataclasses.replace(
        config, stages={"stage1": StageSpec(open_launch)}, inference=inference, seeds=[0], at_once=2
    )
    for at_once, threads, cpus in ((1, None, None), (2, 2, 4.0)):
        changed = dataclasses.replace(both, at_once=at_once)
        settings = plan_comparison(changed, prepare).settings.values()
        assert {train.launch.cpus_per_worker for train in settings} == {threads}
        assert evaluation(changed, "models:/lion/1", 0.0).config["inference"]["cpus"] == cpus


def test_changes_reach_into_groups_and_leave_the_rest() -> None:
    base = {"prompt": {"kind": "static", "tokens": 1}, "stage": 1}
    assert merged(base, {"prompt": {"kind": "both"}}) == {"prompt": {"kind": "both", "tokens": 1}, "stage": 1}
    assert base["prompt"] == {"kind": "static", "tokens": 1}


def stage(config: CompareConfig, **changes: Any) -> dict[str, Any]:
    """Return the field `stages` with changes of its only stage."""
    spec = config.stages["stage1"]
    return {"stages": {"stage1": StageSpec(merged(spec.train, changes), spec.once_per)}}


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda c: {"arms": {"static": {}}}, "at least two"),
        (lambda c: {"arms": {"a": {}, "b": {}}}, "are the same training"),
        (lambda c: {"arms": {"a": {}, "b": {"loop": {"steps": 4}}}}, "as much training as 'a'.*loop.steps"),
        (lambda c: {"arms": {"a": {}, "b": {"loop": {"seed": 4}}}}, "given by `seeds`"),
        (lambda c: {"arms": {"a": {}, "b": {"held_out_seed": 1}}}, "'stage1__b__seed0' holds out other images"),
        (lambda c: {"arms": {"a": {}, "b": {"promt": {"kind": "both"}}}}, "promt"),
        (lambda c: {"arms": {"a b": {}, "c": {}}}, "letters and digits"),
        (lambda c: {"arms": {"v2": {}, "c": {}}}, "cannot give its model that alias"),
        (lambda c: {"baseline": "dynamik"}, "no arm"),
        (lambda c: {"seeds": [1, 1]}, "each once"),
        (lambda c: {"at_once": 0}, "at least one training"),
        (lambda c: {"test_data": ""}, "test_data is empty"),
        (lambda c: {"stages": {}}, "no stages"),
        (lambda c: {"benchmark": "okvqu"}, "did you mean"),
        (lambda c: {"stages": {"stage1": StageSpec(c.stages["stage1"].train, "seed")}}, "could not differ"),
        (lambda c: stage(c, parents=["stage1"]), "does not come before it"),
        (lambda c: stage(c, parents=[]), "no parents"),
        (lambda c: stage(c, loop={"steps": None}) | {"arms": {"a": {}, "b": {"data": "x"}}}, "data"),
    ],
)
def test_what_cannot_be_compared_is_refused(config: CompareConfig, change: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan_comparison(dataclasses.replace(config, **change(config)), prepare)


def test_a_shared_stage_cannot_have_an_arms_stage_as_parent(config: CompareConfig) -> None:
    plain = config.stages["stage1"].train
    stages = {
        "own": StageSpec(plain),
        "shared": StageSpec({**plain, "parents": "own"}, once_per="seed"),
        "last": StageSpec({**plain, "parents": "shared"}),
    }
    with pytest.raises(UserError, match="several models could be that parent; change once_per"):
        plan_comparison(dataclasses.replace(config, stages=stages), prepare)


def test_a_later_stage_holds_out_what_an_earlier_one_held_out(config: CompareConfig) -> None:
    plain = config.stages["stage1"].train
    stages = {"first": StageSpec(plain), "last": StageSpec({**plain, "parents": "first", "validation_fraction": 0.3})}
    with pytest.raises(UserError, match=r"'last__static__seed0' holds out other images than 'first__static__seed0'"):
        plan_comparison(dataclasses.replace(config, stages=stages), prepare)


def test_all_seeds_hold_out_the_same_images(config: CompareConfig) -> None:
    assert {train.held_out for train in plan_comparison(config, prepare).settings.values()} == {(0.2, 0)}


def test_noise_levels_are_checked() -> None:
    for levels in ([0.0, 0.5], [0.5, 0.5], [2.0]):
        with pytest.raises(UserError, match=r"noise\.levels"):
            NoiseCurve(levels=levels)


def test_names_of_steps_contain_stage_arm_and_seed(config: CompareConfig) -> None:
    assert list(instances(config, "stage1").values())[-1] == "stage1__dynamic__seed1"


def test_the_comparison_of_the_sample_world_begins_with_the_demos_steps(root: Path) -> None:
    demo, comparison = (read_config(str(root / "jobs" / name)) for name in ("pipeline.yaml", "pipelines/compare.yaml"))
    shared = [name for name in comparison["steps"] if name != "comparison"]

    assert list(demo["steps"])[: len(shared)] == shared
    assert {name: demo["steps"][name] for name in shared} == {name: comparison["steps"][name] for name in shared}
    assert demo["variables"] == comparison["variables"]
    # Equal steps: the larger comparison reuses the demo's trainings.
    own, whole = (pipeline["steps"]["comparison"]["config"] for pipeline in (demo, comparison))
    for name in ("stages", "name", "data", "tagged", "tag_encoder"):
        assert own[name] == whole[name], name
    assert own["arms"].items() <= whole["arms"].items()
    assert set(own["seeds"]) <= set(whole["seeds"])
    # The demo has one seed and needs a champion for its other commands; the comparison has enough seeds for the rule.
    assert own["champion"]["allow_one_seed"]
    assert len(whole["seeds"]) >= FEWEST_SEEDS
    assert "allow_one_seed" not in whole["champion"]
