"""The files of a world: complete, equal bytes for equal seeds, and readable by the tools of their formats."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.steps import read_manifest
from pipelines.sample_world.scenes import PRESETS, make_scene
from pipelines.sample_world.writing import SampleWorldConfig, sample_world, split_sizes

SMALL: dict[str, Any] = {"images": 20, "preset": "tiny"}


def digests(path: Path) -> dict[str, str]:
    return {file["path"]: file["sha256"] for file in read_manifest(str(path))["files"]}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (
        Path(sample_world(SampleWorldConfig(out=str(tmp_path / name), seed=seed, **SMALL)).path)
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    assert digests(first) == digests(second)
    for file in sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file()):
        if file.name not in ("manifest.json", ".lock"):
            assert (first / file).read_bytes() == (second / file).read_bytes(), file
    differing = {path for path, digest in digests(other).items() if digests(first)[path] != digest}
    assert set(digests(first)) - differing == {"tags.txt"}


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    config = SampleWorldConfig(out=str(tmp_path), **SMALL)
    first = sample_world(config)
    written = {path: path.stat().st_mtime_ns for path in Path(first.path).rglob("*")}
    second = sample_world(config)
    assert (first.skipped, second.skipped) == (False, True)
    assert second.summary == first.summary
    assert {path: path.stat().st_mtime_ns for path in Path(first.path).rglob("*")} == written


def test_pycocotools_reads_the_world(world: Path) -> None:
    from pycocotools.coco import COCO

    with redirect_stdout(io.StringIO()):
        captions, instances = COCO(str(world / "captions_train.json")), COCO(str(world / "instances_train.json"))
    assert sorted(captions.getImgIds()) == sorted(instances.getImgIds())
    assert all(len(captions.getAnnIds(imgIds=[number])) == 5 for number in captions.getImgIds())
    for image in instances.loadImgs(instances.getImgIds()):
        with Image.open(world / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
        assert image["file_name"].endswith(f"{image['id']:012d}.png")


def test_splits_share_no_image_and_every_image_exists(world: Path) -> None:
    images = {
        split: {image["file_name"] for image in json.loads((world / f"instances_{split}.json").read_text())["images"]}
        for split in ("train", "val", "test")
    }
    assert (
        {split: len(names) for split, names in images.items()} == split_sizes(60) == {"train": 48, "val": 6, "test": 6}
    )
    all_names = set.union(*images.values())
    assert len(all_names) == 60
    assert {path.name for path in (world / "images").iterdir()} == all_names


def test_scenes_are_available_without_files(world: Path) -> None:
    """Check that the files have the objects of `make_scene`, so that text and boxes need no files."""
    document = json.loads((world / "instances_val.json").read_text())
    for index, image in enumerate(document["images"]):
        scene = make_scene(7, "val", index, PRESETS["tiny"])
        boxes = [entry["bbox"] for entry in document["annotations"] if entry["image_id"] == image["id"]]
        assert boxes == [[item.x, item.y, item.width, item.height] for item in scene.objects]


def test_the_tags_have_the_layout_of_the_real_detectors(world: Path, shared: Path) -> None:
    simulated = pq.read_table(world / "tags_detector.parquet")
    detected = pq.read_table(shared / "data/coco/tags_detector.parquet")
    assert simulated.schema.names == detected.schema.names
    assert [simulated.schema.field(name).type for name in ("tags", "tag_scores")] == [
        detected.schema.field(name).type for name in ("tags", "tag_scores")
    ]
    assert simulated.num_rows == 60
    vocabulary = set((world / "tags.txt").read_text().split("\n"))
    assert all(set(tags) <= vocabulary for tags in simulated.column("tags").to_pylist())


def test_jpeg_and_another_size(tmp_path: Path) -> None:
    config = SampleWorldConfig(out=str(tmp_path), image_format="jpeg", image_size=72, **SMALL)
    files = sorted((Path(sample_world(config).path) / "images").iterdir())
    with Image.open(files[0]) as image:
        assert image.format == "JPEG"
        assert max(image.size) == 72


@pytest.mark.parametrize("change", [{"images": 9}, {"image_size": 32}])
def test_a_world_too_small_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        sample_world(SampleWorldConfig(**{"out": str(tmp_path), **change}))
    assert not list(tmp_path.iterdir())
