"""A folder of images: files by name, without other files."""

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import records
from pipelines.sources.formats.folder import read_images
from pipelines.sources.records import BadRecord, ImageRecord


def test_files_are_listed_by_name_with_their_ids(tmp_path: Path) -> None:
    for name in ("b.PNG", "000000000285.jpg", "deep/a.jpeg", "deep/000000000285.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    rows = list(read_images(None, str(tmp_path), None))
    good = [record for record in rows if isinstance(record, ImageRecord)]
    assert [record.image_id for record in good] == ["285", "b.PNG", "deep/a.jpeg"]
    assert good[2].uri == str(tmp_path / "deep/a.jpeg")
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [records.DUPLICATE_ID]


def test_the_users_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image file"):
        list(read_images(None, str(tmp_path), None))
    with pytest.raises(UserError, match="does not exist"):
        list(read_images(None, str(tmp_path / "nothing"), None))
    with pytest.raises(UserError, match="no annotations"):
        list(read_images("captions.json", str(tmp_path), None))
