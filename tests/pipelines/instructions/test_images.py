"""The index of precomputed images: look-up by id, and doubles of an image versus two images with the same id."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.tables import TAGGED, to_table
from pipelines.instructions.images import ImageIndex, IndexImages, join_index, shard_set, tagged_files


def index(folder: Path, tagged: Path, digests: bool = False) -> ImageIndex:
    """Build the index of a tagged table in a folder."""
    files = tagged_files(str(tagged))
    stage = IndexImages(str(folder), files, digests, "")
    for shard in range(len(files)):
        stage(pa.table({"shard": [shard]}))
    join_index(str(folder), len(files))
    return ImageIndex(str(folder))


def write(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    """Write a tagged table of a precompute step `name` and return `folder`."""
    path = folder / name / "tagged/part-00000000.parquet"
    path.parent.mkdir(parents=True)
    base = {"uri": "/images/7.jpg", "width": 64, "height": 48, "source": "folder"}
    pq.write_table(to_table([{**base, **row} for row in rows], TAGGED), path)
    return folder


def test_images_are_found_by_id(world: Path, tagged: Path, tmp_path: Path) -> None:
    images = index(tmp_path, tagged, digests=True)
    assert len(images) == 54
    first, missing = images.find(["100000003", "300000000"])
    assert missing is None, "images of test are not tagged"
    assert first is not None
    assert first.uri == str(world / "images/sample_train_000100000003.png")
    assert max(first.width or 0, first.height or 0) == 64
    assert first.digest == hashlib.sha256(Path(first.uri).read_bytes()).digest()


def test_several_steps_in_one_folder_are_one_table(tmp_path: Path) -> None:
    write(tmp_path / "in", "precompute-1", {"image_id": "7"}, {"image_id": "8"})
    write(tmp_path / "in", "precompute-2", {"image_id": "7"}, {"image_id": "vg/7", "width": 10})
    images = index(tmp_path / "out", tmp_path / "in")
    assert len(images) == 3
    assert [picture and picture.width for picture in images.find(["7", "vg/7", "9"])] == [64, 10, None]


@pytest.mark.parametrize("other", [{"uri": "/vg/7.jpg", "width": 10}, {"uri": "/nocaps/0a.jpg"}], ids=["size", "name"])
def test_two_images_with_the_same_id_are_a_user_error(tmp_path: Path, other: dict[str, object]) -> None:
    write(tmp_path / "in", "precompute-1", {"image_id": "7"})
    write(tmp_path / "in", "precompute-2", {"image_id": "7", **other})
    with pytest.raises(UserError, match=rf"id '7': /images/7.jpg and {other['uri']}.*source.collection"):
        index(tmp_path / "out", tmp_path / "in")


def test_an_image_that_is_gone_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "in", "p", {"image_id": "7", "uri": str(tmp_path / "gone.jpg")})
    (picture,) = index(tmp_path / "out", tmp_path / "in", digests=True).find(["7"])
    assert picture is not None
    assert picture.digest is None
    assert shard_set(str(tmp_path / "out")).proofs([0])[0]["unreadable"] == 1


def test_a_folder_without_a_tagged_table_is_a_user_error(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Parquet"):
        tagged_files(str(tmp_path))
    with pytest.raises(UserError, match=r"lacks.*uri"):
        tagged_files(str(world))
