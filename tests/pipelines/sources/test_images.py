"""Every kind of image file is decoded or rejected by its rule. Files are written with Pillow, or are from COCO."""

import pickle
import random
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.sources.images import REASONS, BadImage, check_size, decode_image, decode_with_size, load_image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Return an image with a red left half and a blue right half, to detect rotations."""
    image = Image.new("RGB", (width, height), (200, 0, 0))
    image.paste((0, 0, 200), (width // 2, 0, width, height))
    return image


def corner(image: Image.Image) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(image)[1, 1])


def refusal(content: bytes, **options: Any) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode_image(content, **options)
    assert caught.value.reason in REASONS
    return caught.value


@pytest.mark.parametrize(
    "mode, fill, expected",
    [
        ("L", 120, (120, 120, 120)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("LA", (100, 0), (255, 255, 255)),
        ("I;16", 0xABCD, (0xAB, 0xAB, 0xAB)),
    ],
)
def test_every_pixel_type_becomes_rgb_by_its_rule(mode: str, fill: Any, expected: tuple[int, ...]) -> None:
    image = decode_image(encoded(Image.new(mode, (8, 8), fill)))
    assert image.mode == "RGB"
    assert corner(image) == expected


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = picture().convert("P")
    transparent = image.getpixel((1, 1))
    assert corner(decode_image(encoded(image, transparency=transparent))) == (255, 255, 255)


def test_cmyk_jpeg_keeps_its_colors() -> None:
    red = corner(decode_image(encoded(picture().convert("CMYK"), "JPEG")))
    assert red[0] > 150
    assert max(red[1:]) < 60


def test_animated_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0))]
    assert corner(decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))) == (255, 0, 0)


@pytest.mark.parametrize(
    "orientation, size, left_top", [(3, (40, 30), "blue"), (6, (30, 40), "red"), (8, (30, 40), "blue")]
)
def test_exif_orientation_is_applied(orientation: int, size: tuple[int, int], left_top: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, full_size = decode_with_size(encoded(picture(), "JPEG", exif=exif))
    assert image.size == full_size == size
    assert int(np.argmax(corner(image))) == {"red": 0, "blue": 2}[left_top]


def test_thirty_two_bit_pixels_are_refused() -> None:
    assert refusal(encoded(Image.new("F", (8, 8), 0.5), "TIFF")).reason == "unsupported"


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b"<html><body>404</body></html>", "not_an_image"),
        (b"PK\x03\x04" + bytes(100), "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported"),
        (encoded(picture(), "JPEG")[:100], "truncated"),
        (encoded(picture(), "PNG")[:12], "truncated"),
        (encoded(picture(), "JPEG", progressive=True)[:-80], "truncated"),
    ],
    ids=["empty", "html", "zip", "svg", "eps", "jpeg head", "png head", "progressive tail"],
)
def test_a_file_that_is_not_an_image_has_a_reason(content: bytes, reason: str) -> None:
    assert refusal(content).reason == reason


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = encoded(Image.new("1", (11_000, 11_000)))
    assert len(bomb) < 200_000
    assert refusal(bomb).reason == "too_large"
    assert refusal(encoded(picture()), max_pixels=40 * 30 - 1).reason == "too_large"
    assert decode_image(encoded(picture()), max_pixels=40 * 30).size == (40, 30)


def test_draft_keeps_both_sides_at_least_at_the_requested_size() -> None:
    content = encoded(picture(1600, 1200), "JPEG")
    image, size = decode_with_size(content, draft=384)
    assert image.size == (800, 600)
    assert size == (1600, 1200)
    assert decode_image(content).size == (1600, 1200)


def test_missing_files_folders_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    reasons = {}
    for name in ("nowhere.jpg", "empty.jpg", ""):
        with pytest.raises(BadImage) as caught:
            load_image(str(tmp_path / name))
        reasons[name] = caught.value.reason
    assert reasons == {"nowhere.jpg": "missing", "empty.jpg": "empty", "": "not_a_file"}


def test_the_content_decides_not_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "ünïcode name #1.jpg"
    path.write_bytes(encoded(picture(), "PNG"))
    assert load_image(str(path)).size == (40, 30)


@pytest.mark.parametrize(
    "decoded, annotated", [((640, 480), (640, 480)), ((256, 192), (640, 480)), ((333, 500), (427, 640))]
)
def test_resized_copies_agree_with_their_annotation(decoded: tuple[int, int], annotated: tuple[int, int]) -> None:
    check_size(decoded, annotated)


@pytest.mark.parametrize("annotated", [(480, 640), (0, 480), (640, 0), (-640, -480), (600, 480)])
def test_other_proportions_do_not_agree(annotated: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match="size_mismatch"):
        check_size((640, 480), annotated)


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(BadImage("empty", "no bytes")))  # noqa: S301
    assert (error.reason, error.detail) == ("empty", "no bytes")


def test_damaged_bytes_give_an_image_or_a_listed_reason() -> None:
    rng = random.Random(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = [encoded(picture(), kind) for kind in ("PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000")]
    whole.append(encoded(picture(), "JPEG", exif=exif))
    outcomes = set()
    for _ in range(1500):
        content = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(min(len(content), 300))] = rng.randrange(256)
        try:
            outcomes.add(decode_image(bytes(content), max_pixels=10_000_000).mode)
        except BadImage as error:
            outcomes.add(error.reason)
    assert "RGB" in outcomes
    assert outcomes <= {"RGB", *REASONS}


def test_every_real_image_decodes_to_its_annotated_size(shared: Path) -> None:
    files = sorted((shared / "data/coco/images").iterdir())[:20]
    for file in files:
        image = load_image(str(file))
        with Image.open(file) as plain:
            check_size(image.size, plain.size)
        assert image.mode == "RGB"
