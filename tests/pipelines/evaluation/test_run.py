"""Distributed inference: each row once, resumable by shard, bad images counted, numbers from predictions only."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.tags import save_thresholds
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_file, read_parquet, write_file
from pipelines.core.steps import StepResult, read_manifest
from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table
from pipelines.core.tag_rules import TABLE_THRESHOLDS
from pipelines.evaluation.config import EvaluateConfig, InferenceConfig
from pipelines.evaluation.results import METRICS, SAMPLE_SCORES
from pipelines.evaluation.run import evaluate
from pipelines.evaluation.shards import AnswerShard, input_file, shard_set
from pipelines.evaluation.tag_noise import TagNoise
from pipelines.evaluation.tracking import logged_model
from pipelines.inference.answerer import Answerer, AnswererSettings
from pipelines.inference.decoding import Decoding, DecodingConfig, resolve_decoding
from pipelines.registry import Registry, RegistryConfig
from pipelines.scoring.metrics.pope import f1
from tests.pipelines.evaluation.conftest import IMAGES, World, instruction

QUICK = InferenceConfig(beams=2, shard_rows=8, batch_size=8, actors=1, cpus=1)
SHARDS = 4 * IMAGES // 8


def config(world: World, out: Path) -> EvaluateConfig:
    return EvaluateConfig(model=world.model, data=world.data, tagged=world.tagged, out=str(out), inference=QUICK)


def decoding(world: World, beams: int) -> Decoding:
    return resolve_decoding(world.model, DecodingConfig(), beams)


@pytest.fixture(scope="module")
def finished(ray_cluster: None, world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[StepResult, Path]:
    out = tmp_path_factory.mktemp("out")
    return evaluate(config(world, out)), out


def test_every_row_has_one_prediction_in_order(finished: tuple[StepResult, Path], world: World) -> None:
    predictions = read_parquet(finished[0].path, "predictions")
    instructions = read_parquet(world.data, "instructions")
    assert predictions["sample_id"].equals(instructions["sample_id"])
    assert predictions["references"].equals(instructions["answers"])
    answers = [row["prediction"] for row in predictions.to_pylist() if row["image_id"] != "3"]
    assert all(answers)
    assert len(set(answers)) > IMAGES
    assert all(version.startswith("sha256:") for version in predictions["model_version"].to_pylist())


def test_rows_of_an_unreadable_image_are_wrong_and_counted(finished: tuple[StepResult, Path]) -> None:
    result, _ = finished
    torn = [row for row in read_parquet(result.path, "predictions").to_pylist() if row["image_id"] == "3"]
    assert [row["prediction"] for row in torn] == [""] * 4
    metrics = storage.read_json(storage.join(result.path, METRICS))
    assert metrics["counts"]["unreadable_images"] == 4
    assert result.summary["unreadable_images"] == 4
    assert metrics["tasks"]["vqa"]["estimates"]["soft_accuracy"]["n"] == IMAGES
    quarantine = read_parquet(result.path, "quarantine").to_pylist()
    assert {row["stage"] for row in quarantine} == {"evaluate"}
    assert {row["image_id"] for row in quarantine} == {"3"}


def test_numbers_come_from_the_predictions_alone(finished: tuple[StepResult, Path]) -> None:
    result, out = finished
    again = evaluate(EvaluateConfig(predictions=storage.join(result.path, "predictions"), out=str(out)))
    assert again.summary["metrics"] == result.summary["metrics"]
    tasks = storage.read_json(storage.join(again.path, METRICS))["tasks"]
    assert tasks == storage.read_json(storage.join(result.path, METRICS))["tasks"]


def test_scores_of_samples_give_the_groups_number(finished: tuple[StepResult, Path]) -> None:
    result, _ = finished
    scores = read_file(storage.join(result.path, SAMPLE_SCORES)).to_pylist()
    predictions = {(row["task"], row["sample_id"]) for row in read_parquet(result.path, "predictions").to_pylist()}
    assert {(row["group"], row["sample_id"]) for row in scores} == predictions
    vqa = [row["score"] for row in scores if row["group"] == "vqa"]
    assert sum(vqa) / len(vqa) == pytest.approx(result.summary["vqa.soft_accuracy"])
    outcomes = np.array([row["outcomes"] for row in scores if row["group"] == "pope"])
    assert f1(outcomes.sum(axis=0, keepdims=True))[0] == pytest.approx(result.summary["pope.f1"])


def test_this_process_gives_the_same_answers_as_actors(
    finished: tuple[StepResult, Path], world: World, tmp_path: Path
) -> None:
    here = evaluate(replace(config(world, tmp_path), inference=replace(QUICK, launcher="local", actors=None)))
    assert os.path.basename(here.path) == os.path.basename(finished[0].path)
    assert read_parquet(here.path, "predictions").equals(read_parquet(finished[0].path, "predictions"))


def test_tag_noise_changes_the_tags_that_are_read_and_nothing_else(
    finished: tuple[StepResult, Path], world: World, tmp_path: Path
) -> None:
    result, out = finished
    none = replace(config(world, out), tag_noise=TagNoise(seed=5))
    assert evaluate(none).path == result.path
    here = replace(config(world, tmp_path), inference=replace(QUICK, launcher="local"))
    noisy = evaluate(replace(here, tag_noise=TagNoise(strength=1.0, drop=1.0, invent=0.0)))
    before, after = (pq.read_table(Path(step.path, "input")).to_pylist() for step in (result, noisy))
    assert [{**row, "tags": None} for row in before] == [{**row, "tags": None} for row in after]
    assert all(row["tags"] for row in before)
    assert [row["tags"] for row in after] == [[]] * len(after)


def test_a_finished_run_does_nothing(finished: tuple[StepResult, Path], world: World) -> None:
    result, out = finished
    again = evaluate(config(world, out))
    assert again.skipped
    assert again.path == result.path


def test_a_stopped_run_computes_the_missing_shards_only(
    finished: tuple[StepResult, Path], world: World, tmp_path: Path
) -> None:
    result, _ = finished
    stopped = tmp_path / os.path.basename(result.path)
    shutil.copytree(result.path, stopped)
    files = [Path(shard_set(str(stopped)).result_file(shard)) for shard in range(SHARDS)]
    whole = [file.read_bytes() for file in files]
    (stopped / "manifest.json").unlink()
    files[1].unlink()
    kept = [file.stat().st_ino for file in files if file.exists()]
    continued = evaluate(config(world, tmp_path))
    assert not continued.skipped
    assert [file.read_bytes() for file in files] == whole
    assert [file.stat().st_ino for number, file in enumerate(files) if number != 1] == kept


def test_a_shard_that_is_repeated_leaves_no_earlier_quarantine(world: World, tmp_path: Path) -> None:
    here = replace(config(world, tmp_path / "runs"), inference=replace(QUICK, launcher="local", actors=None))
    tagged, folder = tmp_path / "tagged", os.path.dirname(world.model)
    shutil.copytree(world.tagged, tagged)
    torn = read_parquet(world.tagged, "tagged").to_pylist()
    for row in torn:
        row["uri"] = row["uri"].replace(folder, str(tmp_path))
        shutil.copy(f"{folder}/{row['image_id']}.png", tmp_path)
    write_file(str(tagged / "tagged/part-0.parquet"), to_table(torn, TAGGED))
    here = replace(here, tagged=str(tagged))
    result = evaluate(here)
    assert result.summary["unreadable_images"] == 4
    broken = {row["sample_id"] for row in read_parquet(result.path, "predictions").to_pylist() if not row["prediction"]}
    assert len(broken) == 4
    shutil.copy(tmp_path / "0.png", tmp_path / "3.png")  # the image is readable again
    Path(result.path, "manifest.json").unlink()
    for file in Path(result.path, "predictions").iterdir():
        file.unlink()
    again = evaluate(here)
    assert (again.path, again.summary.get("unreadable_images")) == (result.path, None)
    assert list(Path(again.path, "quarantine").iterdir()) == []


def test_a_kill_between_quarantine_and_predictions_leaves_the_shard_undone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AnswererSettings(world.model, "v", {"vqa": 4}, decoding(world, 1), 4, "fp32", on_gpu=False, threads=1)
    answer_shard, files = AnswerShard(str(tmp_path), settings), shard_set(str(tmp_path))
    row = instruction("vqa", 0) | {"uri": str(tmp_path / "missing.png"), "tags": None}
    table = pa.Table.from_pylist([row])
    write_file(input_file(str(tmp_path), 0), table)
    answer_shard.answer(0)
    assert storage.exists(files.quarantine_file(0))
    shutil.copy(f"{os.path.dirname(world.model)}/0.png", tmp_path / "missing.png")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.evaluation.shards.write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        answer_shard.answer(0)
    assert not storage.exists(files.result_file(0))


def test_an_answer_does_not_depend_on_its_neighbors_in_the_batch(world: World) -> None:
    limits = {"caption": 12, "rec": 12, "vqa": 4, "pope": 4}
    settings = AnswererSettings(world.model, "v", limits, decoding(world, 2), 8, "fp32", on_gpu=False, threads=1)
    rows = [
        instruction(task, image) | {"uri": f"{os.path.dirname(world.model)}/{image}.png", "tags": []}
        for image in (0, 1)
        for task in limits
    ]
    mixed, bad = Answerer(settings).answer(rows)
    alone, _ = Answerer(replace(settings, batch_size=1)).answer(rows)
    assert not bad
    assert len({row["prediction"] for row in alone}) == len(rows)
    assert mixed == alone


def test_a_batch_has_similar_rows_and_answers_keep_the_order_of_rows(world: World) -> None:
    batches: list[list[str]] = []

    class Recording(Answerer):
        def _generate(self, rows: Any, images: Any, bounds: Any) -> list[str]:
            batches.append([row["task"] for row in rows])
            return [row["sample_id"] for row in rows]

    limits = {"caption": 9, "rec": 9, "vqa": 3, "pope": 3}
    uri = f"{os.path.dirname(world.model)}/0.png"
    rows = [instruction(task, image) | {"uri": uri, "tags": []} for image in range(8) for task in limits]
    settings = AnswererSettings(world.model, "version", limits, decoding(world, 1), 4, "fp32", on_gpu=False, threads=1)
    replies = Recording(settings).replies(rows)
    assert replies == [row["sample_id"] for row in rows]
    assert [set(batch) for batch in batches] == [{task} for task in ("pope", "vqa", "caption", "rec") for _ in range(2)]


def test_a_question_that_does_not_fit_the_model_is_wrong_and_quarantined(world: World) -> None:
    settings = AnswererSettings(world.model, "v", {"vqa": 4}, decoding(world, 1), 4, "fp32", on_gpu=False, threads=1)
    good = instruction("vqa", 0) | {"uri": f"{os.path.dirname(world.model)}/0.png", "tags": None}
    predictions, bad = Answerer(settings).answer([good, good | {"instruction": "why " * 500}])
    assert [row["prediction"] == "" for row in predictions][1]
    assert [row["reason"] for row in bad] == ["unanswerable"]


def test_a_plan_that_the_cluster_cannot_hold_is_refused(ray_cluster: None, world: World, tmp_path: Path) -> None:
    greedy = replace(config(world, tmp_path), inference=replace(QUICK, actors=500))
    with pytest.raises(UserError, match="500 actors"):
        evaluate(greedy)


def test_answers_that_cannot_be_scored_are_refused_before_the_model_is_asked(world: World, tmp_path: Path) -> None:
    path = tmp_path / "instructions.parquet"
    write_file(str(path), to_table([instruction("vqa", 0) | {"answers": ["red"]}], INSTRUCTIONS))
    with pytest.raises(UserError, match="mode evaluate"):
        evaluate(replace(config(world, tmp_path), data=str(path)))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"benchmark": "okvqu"}, "did you mean 'okvqa'"),
        ({"model": None}, "either --predictions"),
        ({"predictions": "x.parquet"}, "either --predictions"),
        ({"tagged": None}, "--tagged"),
        ({"model": "nowhere"}, "not a model's folder"),
        ({"data": "nowhere"}, "does not exist"),
        ({"inference": replace(QUICK, batch_size=0)}, "batch_size is 0"),
        (
            {"model": None, "predictions": "x.parquet", "tag_noise": TagNoise(strength=0.5)},
            "no effect on --predictions",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_starts(
    world: World, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(replace(config(world, tmp_path), **change))  # type: ignore[arg-type]


def test_a_registered_model_is_named_in_predictions_and_gets_the_numbers(
    ray_cluster: None, world: World, tmp_path: Path
) -> None:
    registry = Registry(RegistryConfig(), str(tmp_path))
    version = registry.register("lion", world.model, registry.open_run("lion", "0" * 64), "lion")
    result = evaluate(replace(config(world, tmp_path), model="models:/lion@candidate", benchmark="pope"))
    assert set(read_parquet(result.path, "predictions")["model_version"].to_pylist()) == {f"models:/lion/{version}"}
    tags = registry.client.get_model_version("lion", str(version)).tags
    assert tags["evaluate.pope.pope.f1"] == repr(result.summary["pope.f1"])
    # A name with a character that MLflow refuses; the number is a tag of the version and a metric of the model.
    result = evaluate(replace(config(world, tmp_path), model="models:/lion@candidate", benchmark="rec"))
    registered = registry.client.get_model_version("lion", str(version))
    assert registered.tags["evaluate.rec.rec.acc_at_0.5"] == repr(result.summary["rec.acc@0.5"])
    model_id = logged_model(registry, registry.lookup(f"models:/lion/{version}"))
    assert model_id is not None
    metrics = {metric.key: metric.value for metric in registry.client.get_logged_model(model_id).metrics or []}
    assert metrics["evaluate.rec.rec.acc_at_0.5"] == result.summary["rec.acc@0.5"]


def test_an_evaluation_reads_tags_by_the_rule_of_its_table_or_its_settings(world: World, tmp_path: Path) -> None:
    """The model's training has not decided which tags it reads; the result records the rule."""
    table = tmp_path / "tagged"
    shutil.copytree(world.tagged, table)
    save_thresholds(table / "tagged", {"red": 0.95, "green": 0.5}, TABLE_THRESHOLDS)
    local = replace(config(world, tmp_path), inference=replace(QUICK, launcher="local"))
    by_table = evaluate(replace(local, tagged=str(table)))
    as_number = evaluate(replace(local, tagged=str(table), threshold=0.5))
    plain = evaluate(local)
    answers = [
        {row["sample_id"]: row["prediction"] for row in read_parquet(result.path, "predictions").to_pylist()}
        for result in (plain, by_table, as_number)
    ]
    assert answers[0] == answers[2]
    changed = {name for name, answer in answers[0].items() if answers[1][name] != answer}
    red = {name for name in answers[0] if int(name.rpartition(":")[2]) % 4 == 0}
    assert changed
    assert changed <= red, "red at 0.9 is not above its own 0.95; the other tags are read as before"
    for result, threshold in ((plain, 0.5), (by_table, "per_tag"), (as_number, 0.5)):
        document = storage.read_json(storage.join(result.path, METRICS))
        assert document["tags_read"]["vector"]["threshold"] == threshold
        assert read_manifest(result.path)["tags_read"] == document["tags_read"]
    with pytest.raises(UserError, match="tagger of these tags has no thresholds"):
        evaluate(replace(local, threshold="per_tag"))
    with pytest.raises(UserError, match="no effect on --predictions"):
        evaluate(replace(local, model=None, predictions=plain.path, threshold=0.4))
