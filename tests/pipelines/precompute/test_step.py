"""The whole step on a real Ray: its promises P1, P2, P7 and P11, and the real COCO images with their captions."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest

from pipelines.core import steps
from pipelines.core.errors import DataRefused, UserError
from pipelines.core.shards import ShardIndex
from pipelines.core.tag_rules import thresholds_of
from pipelines.precompute import PrecomputeConfig, SourceConfig, TaggerConfig, precompute, shards
from pipelines.precompute.tally import Tally
from tests.pipelines.precompute.worlds import digests_of, folder_config, rows_of, save_tiny_ram, write_pictures

# The reference has the cosines with four digits.
COSINE_TOLERANCE = 1e-4


@pytest.mark.usefixtures("ray_cluster")
def test_the_real_images_with_the_captions_that_minilm_picks(shared: Path, tmp_path: Path) -> None:
    coco = shared / "data/coco"
    config = PrecomputeConfig(
        source=SourceConfig(annotations=str(coco / "captions.json"), images=str(coco / "images"), split="val"),
        tagger=TaggerConfig(kind="table", path=str(coco / "tags_detector.parquet")),
        out=str(tmp_path),
    )
    result = precompute(config)
    assert (result.summary["rows"], result.summary["quarantined"], result.summary["without_tags"]) == (161, 0, 24)
    rows = {row["image_id"]: row for row in rows_of(result.path)}
    expected = json.loads((coco / "centroid_pick_minilm.json").read_text())
    assert len(expected) == 81
    for image_id, pick in expected.items():
        row = rows[image_id]
        assert row["caption_index"] == pick["picked"]
        assert row["caption"] == row["captions"][pick["picked"]]
        assert row["centroid_similarity"] == pytest.approx(max(pick["cos_to_centroid"]), abs=COSINE_TOLERANCE)
    manifest = steps.read_manifest(result.path)
    assert manifest["made_by"]["sentence_encoder"] == "all-MiniLM-L6-v2"
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == digests_of(result.path)


@pytest.mark.usefixtures("ray_cluster")
def test_a_resumed_run_computes_only_the_missing_shards(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = folder_config(tmp_path, count=10, shard_rows=4, max_bad_fraction=0.2)
    (tmp_path / "images/picture-0001.jpg").write_bytes(b"no image")
    result = precompute(config)
    assert (result.summary["rows_in"], result.summary["rows"], result.summary["quarantined"]) == (10, 9, 1)
    undisturbed = digests_of(result.path)

    folder = Path(result.path)
    (folder / "manifest.json").unlink()
    Path(shards.shard_set(result.path).done_file(1)).unlink()  # as if killed between a result and its proof
    Path(shards.shard_set(result.path).result_file(2)).unlink()  # as if a file was lost
    untouched = Path(shards.shard_set(result.path).result_file(0)).stat().st_mtime_ns
    with caplog.at_level(logging.INFO, logger="lion.precompute"):
        again = precompute(config)
    assert "2 of 3 shards to compute" in caplog.text
    assert Path(shards.shard_set(result.path).result_file(0)).stat().st_mtime_ns == untouched
    assert digests_of(again.path) == undisturbed
    assert (again.path, again.skipped, again.summary) == (result.path, False, result.summary)
    ids = [row["image_id"] for row in rows_of(again.path)]
    assert len(ids) == len(set(ids)) == 9


@pytest.mark.usefixtures("ray_cluster")
def test_too_much_bad_input_is_refused_and_a_repaired_run_resumes(tmp_path: Path) -> None:
    config = folder_config(tmp_path, count=8, shard_rows=4, max_bad_fraction=0.2)
    for number in (4, 5):
        (tmp_path / f"images/picture-000{number}.jpg").write_bytes(b"")
    with pytest.raises(DataRefused, match=r"2 of 8 inputs are bad \(empty 2\), more than max_bad_fraction 0\.2"):
        precompute(config)
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "manifest.json").exists()
    with pytest.raises(DataRefused):  # immediately, without computing anything again
        precompute(config)
    write_pictures(tmp_path / "images", 8)
    result = precompute(dataclasses.replace(config, retry_quarantined=True))
    assert (result.path, result.summary["rows"], result.summary["quarantined"]) == (str(folder), 8, 0)


def test_a_finished_run_starts_no_ray_and_a_changed_one_has_its_own_folder(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder_config(tmp_path, count=2)
    result = precompute(config)
    assert rows_of(result.path)[0]["tags"] == [
        {"tag": "high", "score": pytest.approx(0.9)},
        {"tag": "low", "score": pytest.approx(0.2)},
    ]
    monkeypatch.setattr("pipelines.precompute.step.ray_session", None)  # would raise when used
    again = precompute(config)
    assert again.skipped
    assert again.summary == result.summary
    assert precompute(dataclasses.replace(config, max_bad_fraction=0.5)).skipped  # a runtime setting
    with pytest.raises(TypeError):
        precompute(dataclasses.replace(config, shard_rows=1))


@pytest.mark.usefixtures("ray_cluster")
def test_a_plan_that_cannot_be_scheduled_is_refused_without_waiting(tmp_path: Path) -> None:
    config = folder_config(tmp_path, count=2)
    for settings in ({"actors": 99}, {"gpus": 1.0}):
        tagger = dataclasses.replace(config.tagger, **settings)
        with pytest.raises(UserError, match="needs"):
            precompute(dataclasses.replace(config, tagger=tagger))
    ram = TaggerConfig(path=str(save_tiny_ram(tmp_path / "ram")))
    with pytest.raises(UserError, match="memory at the same time"):
        precompute(dataclasses.replace(config, tagger=ram, shard_rows=10**9))


@pytest.mark.usefixtures("ray_cluster")
def test_a_broken_annotation_file_is_a_user_error(tmp_path: Path) -> None:
    config = folder_config(tmp_path, count=1)
    (tmp_path / "captions.json").write_text('{"images": [')
    source = SourceConfig(annotations=str(tmp_path / "captions.json"), images=str(tmp_path / "images"))
    with pytest.raises(UserError, match=r"captions\.json"):
        precompute(dataclasses.replace(config, source=source))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shard_rows": 0}, "shard_rows"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction"),
        ({"tagger": TaggerConfig(kind="oracle", path="x")}, "oracle"),
        ({"tagger": TaggerConfig(kind="table", path="/no/such/file")}, "does not exist"),
        ({"tagger": TaggerConfig()}, r"tagger\.path"),
        ({"source": SourceConfig(kind="imagenet", images="x")}, "imagenet"),
        ({"source": SourceConfig(images="/no/such/folder")}, "does not exist"),
    ],
)
def test_mistakes_are_named_before_anything_starts(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        precompute(dataclasses.replace(folder_config(tmp_path, count=1), **changes))  # type: ignore[arg-type]


def test_the_tally_counts_annotations_and_earlier_runs() -> None:
    index = ShardIndex(rows=98, shard_rows=49, bad_records={"no_caption": 2}, files=())
    tally = Tally(index, 0.03, [{"rows": 48, "quarantined": {"empty": 1}}])
    tally.check()
    tally.add({"rows": 48, "quarantined": {"empty": 1}})
    with pytest.raises(DataRefused, match=r"4 of 100 inputs are bad \((no_caption 2, empty 2|empty 2, no_caption 2)\)"):
        tally.check()


@pytest.mark.usefixtures("ray_cluster")
def test_the_taggers_thresholds_are_written_next_to_its_tags(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = folder_config(tmp_path, count=4)
    with caplog.at_level(logging.INFO, logger="lion.precompute"):
        without = precompute(config)
    assert "no thresholds by tag" in caplog.text
    assert steps.read_manifest(without.path)["thresholds"] is None
    assert thresholds_of(without.path) is None

    own = tmp_path / "own.json"
    own.write_text('{"low": 0.1, "high": 0.95}')
    named = precompute(dataclasses.replace(config, tagger=dataclasses.replace(config.tagger, thresholds=str(own))))
    manifest = steps.read_manifest(named.path)
    assert manifest["thresholds"] == "tagged/_tag_thresholds.json"
    assert manifest["thresholds"] in {file["path"] for file in manifest["files"]}
    assert thresholds_of(named.path) == {"low": 0.1, "high": 0.95}
    assert named.path != without.path

    # A precomputed table can be read as a table of tags. Its thresholds come with it; a table that is one file has them
    # in a file next to it.
    again = precompute(dataclasses.replace(config, tagger=TaggerConfig(kind="table", path=f"{named.path}/tagged")))
    assert thresholds_of(again.path) == {"low": 0.1, "high": 0.95}
    own.rename(tmp_path / "_tag_thresholds.json")
    neighbor = precompute(config)
    assert (neighbor.path, neighbor.skipped) == (named.path, True)  # the same thresholds in another place


def test_wrong_thresholds_are_refused(tmp_path: Path) -> None:
    config = folder_config(tmp_path, count=1)
    lost = dataclasses.replace(config.tagger, thresholds=str(tmp_path / "lost.json"))
    with pytest.raises(UserError, match=r"lost\.json does not exist"):
        precompute(dataclasses.replace(config, tagger=lost))
    with pytest.raises(UserError, match=r"tagger\.kind ram brings its own thresholds"):
        precompute(dataclasses.replace(config, tagger=dataclasses.replace(lost, kind="ram")))
