"""A whole sweep with real Tune, Train and MLflow: ranks, files, registered model, and resuming after a kill."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.pipeline import prepare
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import StepResult
from pipelines.registry import Registry
from pipelines.sweeps.config import EarlyStopping, SweepConfig, check
from pipelines.sweeps.run import BEST, RANKING, RESULT, sweep
from tests.pipelines.training import conftest as drawn
from tests.pipelines.training.conftest import World

world, tag_encoder = drawn.world, drawn.tag_encoder  # fixtures


@pytest.fixture(scope="module")
def config(world: World, tag_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    """Configure two learning rates that learn, one so large that the loss is not finite, and one too small to learn."""
    return SweepConfig(
        training={
            "data": world.tagged,
            "base": tag_encoder,
            "normalize": True,
            "pooling": "mean",
            "validation_fraction": 0.25,
            "loop": {"steps": 8, "batch_size": 8, "validate_every": 2},
            "optimizer": {"clip_norm": 0.0, "schedule": "constant", "learning_rate": 1e-3},
            "launch": {"cpus_per_worker": 1, "max_failures": 0},
        },
        space={"optimizer.learning_rate": {"choice": [1e-3, 1e-4, 1e-9, 1e30]}},
        search="grid",
        early_stopping=EarlyStopping(first=0.4, reduction=2.0),
        concurrent=2,
        retries=0,
        out=str(tmp_path_factory.mktemp("runs")),
    )


def placement_groups() -> set[str]:
    """Return the placement groups that hold resources of the cluster."""
    from ray.util import placement_group_table

    return {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}


@pytest.fixture(scope="module")
def groups_before(ray_cluster: None) -> set[str]:
    return placement_groups()


@pytest.fixture(scope="module")
def finished(config: SweepConfig, groups_before: set[str]) -> StepResult:
    return sweep(config, prepare)


def trials(result: StepResult) -> dict[float, dict[str, Any]]:
    """Return the trials of `sweep.json` by learning rate."""
    document = storage.read_json(storage.join(result.path, RESULT))
    ranking = [row for row in document["ranking"] if row["name"] != "default"]
    return {row["values"]["optimizer.learning_rate"]: row for row in ranking}


def test_one_failed_trial_does_not_end_the_sweep(finished: StepResult) -> None:
    by_rate = trials(finished)
    assert len(by_rate) == 4
    assert (by_rate[1e30]["state"], finished.summary["failed"]) == ("failed", 1)
    assert "The loss of step 1 is nan" in by_rate[1e30]["error"]
    best = max((row for row in by_rate.values() if row["state"] == "finished"), key=lambda row: row["value"])
    assert finished.summary["cosine_gap"] == best["value"]


def test_trials_release_their_resources(finished: StepResult, groups_before: set[str]) -> None:
    """Check failed trials and trials stopped early; a placement group that stays would block later trials."""
    assert placement_groups() <= groups_before


def test_the_ranking_and_the_figures_are_written(finished: StepResult) -> None:
    text = storage.read_bytes(storage.join(finished.path, RANKING)).decode()
    ranks = [line.split(" | ")[0] for line in text.splitlines() if line.count(" | ") == 6]
    assert ranks == ["rank", "---", "1", "2", "3", "4", "5"]  # four trials and the unchanged configuration
    assert " | default | " in text
    for name in ("parallel.png", "response.png", "progress.png"):
        assert storage.read_bytes(storage.join(finished.path, name)).startswith(b"\x89PNG")


def test_the_best_configuration_is_skipped_by_its_verb(finished: StepResult, config: SweepConfig) -> None:
    values = yaml.safe_load(storage.read_bytes(storage.join(finished.path, BEST)))
    settings, run = prepare("train_tag_encoder", values)
    result = run(settings)
    assert result.skipped
    best = trials(finished)[values["optimizer"]["learning_rate"]]
    assert result.path == best["folder"]


def test_only_the_best_is_registered_and_every_run_is_a_child_of_the_sweeps(
    finished: StepResult, config: SweepConfig
) -> None:
    registry = Registry(config.registry, config.out)
    (version,) = registry.client.search_model_versions("name = 'lion-tag-encoder'")
    assert finished.summary["registered"] == f"models:/lion-tag-encoder/{version.version}"
    assert registry.lookup("models:/lion-tag-encoder@candidate").version == int(version.version)
    manifest = storage.read_json(storage.join(finished.path, "manifest.json"))
    experiment = registry.client.get_run(manifest["run_id"]).info.experiment_id
    children_of = f"tags.`mlflow.parentRunId` = '{manifest['run_id']}'"
    children = registry.client.search_runs([experiment], children_of)
    states = {float(run.data.params["optimizer.learning_rate"]): run.info.status for run in children}
    # The rate 1e-3 is the unchanged configuration: its trial skips the training, whose run is no child of the sweep's.
    assert set(states) == {1e-4, 1e-9, 1e30}
    assert states[1e30] == "FAILED"
    assert version.tags["sweep.run"] == manifest["run_id"]
    assert registry.client.get_run(manifest["run_id"]).data.metrics["best/cosine_gap"] == finished.summary["cosine_gap"]


def test_trials_that_are_done_are_not_run_again(finished: StepResult, config: SweepConfig) -> None:
    assert sweep(config, prepare).skipped
    before = trials(finished)

    def reported() -> dict[str, bytes]:
        """Return the content of Tune's result files of the trials that did not fail."""
        files = Path(finished.path, "tune").glob("*/result.json")
        return {str(file): file.read_bytes() for file in files if not (file.parent / "error.txt").exists()}

    written = reported()
    assert len(written) == 3
    Path(finished.path, "manifest.json").unlink()  # as if the sweep was killed before its end
    again = sweep(config, prepare)
    assert not again.skipped
    assert reported() == written
    assert {rate: row["value"] for rate, row in trials(again).items()} == {
        rate: row["value"] for rate, row in before.items()
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"space": {}}, "space is empty"),
        ({"space": {"margin": {"choice": [0.1, 0.2]}}, "metric": "loss", "mode": "min"}, "depends on"),
        ({"space": {"held_out_seed": {"choice": [0, 1]}}}, "on which samples a trial is measured"),
        ({"space": {"validation_fraction": {"uniform": [0.1, 0.2]}}}, "on which samples a trial is measured"),
        ({"seed": -1}, "set it to 0 or more"),
        ({"trials": 0}, "at least 1"),
        ({"concurrent": 0}, "at least 1"),
        ({"training": {"launch": {"launcher": "local"}}}, "trials are Ray Train runs"),
        ({"training": {}, "space": {"margin": {"choice": [0.1, 0.2]}}}, "training.normalize is not set"),
    ],
)
def test_a_wrong_sweep_is_refused(changes: dict[str, Any], message: str, config: SweepConfig) -> None:
    with pytest.raises(UserError, match=message):
        check(dataclasses.replace(config, **changes))


@pytest.mark.parametrize(
    "space, message",
    [
        ({"optimizer.lerning_rate": {"choice": [0.1]}}, "Did you mean"),
        ({"optimizer.learning_rate": {"choice": [0.1, -1.0]}}, "must be above 0"),
        ({"launch.workers": {"choice": [1, 2]}}, "where a training runs"),
    ],
)
def test_a_field_or_a_value_that_the_training_refuses_ends_the_sweep_before_it_starts(
    space: dict[str, Any], message: str, config: SweepConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        sweep(dataclasses.replace(config, space=space, out=str(tmp_path)), prepare)
    assert not list(tmp_path.glob("*-*"))


def test_early_stopping_has_bounds() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        EarlyStopping(first=0.0)
    with pytest.raises(UserError, match="above 1"):
        EarlyStopping(reduction=1.0)
