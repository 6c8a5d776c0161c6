"""Images read from an object store and results written to one (moto's S3 server, in a separate process)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.core import storage
from pipelines.inference.pictures import find_pictures, open_picture
from pipelines.precompute import shards
from pipelines.sources.images import BadImage, load_image
from tests.object_store import BUCKET, s3_server, settings
from tests.pipelines.precompute.worlds import folder_config, rows_of


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket. S3 clients of this process and of its children find the server by environment variables."""
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in settings(endpoint).items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


def upload(folder: Path, uri: str) -> None:
    for file in sorted(folder.iterdir()):
        storage.write_atomic(storage.join(uri, file.name), file.read_bytes())


def test_a_run_from_bucket_to_bucket_equals_the_local_one(bucket: str, tmp_path: Path) -> None:
    """In a separate process: the session's Ray started before the server, so its workers lack the variables."""
    config = folder_config(tmp_path, count=5, shard_rows=2)
    upload(tmp_path / "images", f"{bucket}/images")
    command = [
        sys.executable, "-m", "jobs.precompute", "--ray.address", "local", "--ray.local_cpus", "4", "--shard_rows", "2",
        "--source.kind", "folder", "--source.images", f"{bucket}/images", "--source.split", "train",
        "--tagger.kind", "table", "--tagger.path", config.tagger.path, "--out", f"{bucket}/runs",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    (manifest,) = (file for file in storage.list_files(f"{bucket}/runs") if file.endswith("manifest.json"))
    document: dict[str, Any] = storage.read_json(manifest)
    assert (document["rows"], document["summary"]["quarantined"]) == (5, 0)
    folder = manifest.removesuffix("/manifest.json")
    for file in document["files"]:
        local = tmp_path / "copy" / file["path"]
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(storage.read_bytes(storage.join(folder, file["path"])))
        assert storage.sha256(str(local)) == file["sha256"]
    rows = rows_of(str(tmp_path / "copy"))
    assert [row["uri"] for row in rows] == [f"{bucket}/images/picture-000{n}.jpg" for n in range(5)]
    assert {(row["width"], row["height"]) for row in rows} == {(40, 30)}
    assert shards.shard_set(folder).done() == {0, 1, 2}


def test_an_object_that_does_not_exist_is_missing(bucket: str) -> None:
    with pytest.raises(BadImage, match="missing"):
        load_image(f"{bucket}/nowhere.jpg")


def test_predict_reads_pictures_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    """An object or a prefix of objects."""
    for name, color in (("one.png", "red"), ("two.png", "blue")):
        Image.new("RGB", (60, 40), color).save(tmp_path / name)
    upload(tmp_path, f"{bucket}/pictures")
    assert find_pictures([f"{bucket}/pictures", f"{bucket}/pictures/one.png"]) == [
        f"{bucket}/pictures/{name}.png" for name in ("one", "two", "one")
    ]
    opened = open_picture(f"{bucket}/pictures/two.png")
    assert isinstance(opened, Image.Image)
    assert opened.getpixel((0, 0)) == (0, 0, 255)
