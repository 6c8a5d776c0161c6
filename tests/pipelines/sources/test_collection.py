"""An id that is only a number belongs to COCO; every other id begins with its collection."""

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import QuestionFiles, read_images, read_questions
from pipelines.sources.collection import id_of_file, named_alike
from pipelines.sources.records import ImageRecord
from tests.pipelines.sources.conftest import Write


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("COCO_val2014_000000542145.jpg", "542145"),
        ("train2017/000000000009.jpg", "9"),
        ("sample_test_000003000001.png", "3000001"),
        ("VisualDialog_val2018_000000284024.jpg", "visdial/284024"),
        ("2405722.jpg", "vg/2405722"),
        ("front_4006381333931.jpg", "front_4006381333931.jpg"),  # a bar code of 13 digits
        ("upc_012345678905.jpg", "upc_012345678905.jpg"),  # and of 12
        ("kitchen_9.jpg", "kitchen_9.jpg"),
    ],
)
def test_ids_by_file_name(name: str, image_id: str) -> None:
    assert id_of_file(name) == image_id


def test_names_of_one_image() -> None:
    assert named_alike("s3://b/val2014/COCO_val2014_000000000042.jpg", "000000000042.webp")
    assert named_alike("/a/x.jpg", "b/x.png")
    assert not named_alike("000000000042.jpg", "000000000043.jpg")
    assert not named_alike("COCO_val2014_000000000009.jpg", "0013ea2087020901.jpg")


def test_pictures_and_questions_of_a_named_collection_meet(write: Write, tmp_path: Path) -> None:
    document = {
        "images": [{"id": 9, "file_name": "a.jpg"}, {"id": 10}],
        "annotations": [{"image_id": 9, "caption": "a dog"}, {"image_id": 10, "caption": "a cat"}],
    }
    path = write(document)
    images = list(read_images("coco_captions", path, str(tmp_path), None, "nocaps"))
    questions = list(read_questions("coco_captions", QuestionFiles(path, collection="nocaps")))
    # What is set aside names its collection, too.
    assert [record.image_id for record in images] == [record.image_id for record in questions] == [
        "nocaps/9", "nocaps/10"
    ]  # fmt: skip
    assert [record.image_id for record in read_images("coco_captions", path, str(tmp_path), None)] == ["9", "10"]


def test_two_folders_of_numbered_frames_are_told_apart_by_their_collection(tmp_path: Path) -> None:
    for video in ("video1", "video2"):
        (tmp_path / video).mkdir()
        (tmp_path / video / "000000000001.jpg").touch()
    rows = list(read_images("folder", None, str(tmp_path), None, "videos"))
    ids = [record.image_id for record in rows if isinstance(record, ImageRecord)]
    assert ids == ["videos/video1/000000000001.jpg", "videos/video2/000000000001.jpg"]
    *_, second = read_images("folder", None, str(tmp_path), None)
    assert "name a collection" in getattr(second, "detail", "")


def test_mistakes(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ids of gqa already name their collection"):
        read_questions("gqa", QuestionFiles(write({}), collection="mine"))
    with pytest.raises(UserError, match="ids of flickr30k already name their collection"):
        read_images("flickr30k", write({}), str(tmp_path), None, "mine")
    with pytest.raises(UserError, match="'a/b'; use only letters"):
        read_images("folder", None, str(tmp_path), None, "a/b")
