"""Visual Genome: images, and a phrase for every region."""

from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import QuestionFiles, read_questions, records
from pipelines.sources.formats.visual_genome import read_images
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write

IMAGE = {
    "width": 800, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "height": 600, "image_id": 1,
    "coco_id": None, "flickr_id": None,
}  # fmt: skip


def region(number: int = 1382, **changes: Any) -> dict[str, Any]:
    """Return a region with the keys of region_descriptions.json."""
    box = {"x": 421, "y": 57, "width": 82, "height": 139}
    return {"region_id": number, **box, "image_id": 1, "phrase": "the clock is green", **changes}


def read(write: Write, *regions: Any) -> list[QuestionRecord | BadRecord]:
    write([IMAGE, {**IMAGE, "image_id": 2, "coco_id": 309}], "image_data.json")
    rows = [{"id": 1, "regions": list(regions)}, {"id": 2, "regions": [region(5)]}]
    return list(read_questions("visual_genome", QuestionFiles(write(rows, "region_descriptions.json"))))


def test_regions_with_boxes_in_pixels(write: Write) -> None:
    first, second = read(write, region())
    assert first == QuestionRecord(
        "1-1382", "vg/1", "rec", "region", "the clock is green", (), box=(421, 57, 82, 139), region_id="1382"
    )
    assert isinstance(second, QuestionRecord)
    assert (second.image_id, second.same_as) == ("vg/2", "309")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (region(2, width=0), records.BOX_WITHOUT_AREA),
        (region(2, height=-3), records.BOX_WITHOUT_AREA),
        (region(2, phrase=""), records.EMPTY_TEXT),
        (region(2, x=None), records.WRONG_TYPE),
        (region(), records.DUPLICATE_ID),
    ],
)
def test_a_bad_region_becomes_a_bad_record(write: Write, entry: Any, reason: str) -> None:
    results = read(write, region(), entry)
    assert [record.reason for record in results if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in results if isinstance(record, QuestionRecord)] == ["1-1382", "2-5"]


def test_images_are_in_the_folder_of_their_url(write: Write) -> None:
    results = list(read_images(write([IMAGE, IMAGE]), "/vg", None))
    assert results[0] == ImageRecord("vg/1", "/vg/VG_100K_2/1.jpg", 800, 600, None, "visual_genome", ())
    assert isinstance(results[1], BadRecord)


def test_the_list_of_pictures_is_needed(write: Write) -> None:
    with pytest.raises(UserError, match=r"image_data\.json does not exist"):
        list(read_questions("visual_genome", QuestionFiles(write([], "region_descriptions.json"))))
