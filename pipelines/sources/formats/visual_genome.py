"""Visual Genome: image_data.json, and region_descriptions.json with a phrase for every region (Krishna et al. 2017).

Format: https://homes.cs.washington.edu/~ranjay/visualgenome/api.html. `image_data.json` is `[{"image_id", "url",
"width", "height", "coco_id"}]`: half of the images are COCO's, so that training on them can
leak COCO's evaluation images.
"""

from collections.abc import Iterator

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.records import (
    DUPLICATE_ID,
    BadAnnotation,
    BadRecord,
    ImageRecord,
    QuestionRecord,
    box_field,
    field,
    id_field,
    image_uri,
    size_field,
    text_field,
)
from pipelines.sources.streams import array_elements


def image_id_of(number: str) -> str:
    """Return the id of an image: "2318000" → "vg/2318000"."""
    return f"vg/{number}"


def default_image_data(annotations: str) -> str:
    """Return the default path of image_data.json: the folder of the annotations."""
    return storage.join(storage.absolute(annotations).rpartition("/")[0], "image_data.json")


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Yield images in the order of the file, with their sizes and without captions.

    Args:
        annotations: image_data.json.
        images: the folder with VG_100K and VG_100K_2.
        split: stored with every image.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    if annotations is None:
        raise UserError("visual_genome needs image_data.json; set annotations.")
    seen: set[str] = set()
    for number, entry in enumerate(array_elements(annotations, None)):
        where, image_id, uri = f"row {number}", None, None
        try:
            image_id = image_id_of(id_field(entry, "image_id", where))
            if image_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: image {image_id} was there before")
            seen.add(image_id)
            uri = image_uri(images, "/".join(text_field(entry, "url", where).split("/")[-2:]))
            width, height = size_field(entry, "width", where), size_field(entry, "height", where)
            yield ImageRecord(image_id, uri, width, height, split, "visual_genome", ())
        except BadAnnotation as error:
            yield error.record(image_id, uri)


def coco_ids(image_data: str) -> dict[str, str]:
    """Return the COCO id of every image that is also COCO's, by Visual Genome's number.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    rows = (entry for entry in array_elements(image_data, None) if isinstance(entry, dict))
    return {str(row["image_id"]): str(row["coco_id"]) for row in rows if "image_id" in row and row.get("coco_id")}


def read_questions(annotations: str, image_data: str) -> Iterator[QuestionRecord | BadRecord]:
    """Yield a record per region in the order of the file: its phrase, and its box in pixels.

    Args:
        annotations: region_descriptions.json.
        image_data: image_data.json, with the COCO ids of images that are also COCO's.

    Raises:
        UserError: a file is missing, is not JSON, or has another format.
    """
    in_coco = coco_ids(image_data)
    seen: set[str] = set()
    for number, entry in enumerate(array_elements(annotations, None)):
        where, image_id = f"row {number}", None
        try:
            name = id_field(entry, "id", where)
            image_id = image_id_of(name)
            if image_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: image {image_id} was there before")
            seen.add(image_id)
            regions = field(entry, "regions", list, where)
        except BadAnnotation as error:
            yield error.record(image_id)
            continue
        region_ids: set[str] = set()
        for region in regions:
            try:
                region_id = id_field(region, "region_id", f"a region of {where}")
                if region_id in region_ids:
                    raise BadAnnotation(DUPLICATE_ID, f"{where}: region {region_id} was there before")
                region_ids.add(region_id)
                region_name = f"region {region_id} of {where}"
                text = text_field(region, "phrase", region_name)
                corners = {
                    "box": [field(region, key, (int, float), region_name) for key in ("x", "y", "width", "height")]
                }
                box = box_field(corners, "box", region_name)
                sample_id = f"{name}-{region_id}"
                yield QuestionRecord(
                    sample_id,
                    image_id,
                    "rec",
                    "region",
                    text,
                    (),
                    box=box,
                    region_id=region_id,
                    same_as=in_coco.get(name),
                )
            except BadAnnotation as error:
                yield error.record(image_id)
