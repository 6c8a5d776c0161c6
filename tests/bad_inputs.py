"""A table of all tested kinds of bad input with their expected outcomes.

    python -m tests.bad_inputs DIR

writes the inputs to DIR, runs precompute on them, and prints the expected and the actual outcomes.
"""

import json
import os
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.core.runtime import RayConfig
from pipelines.precompute import PrecomputeConfig, SourceConfig, TaggerConfig, precompute
from tests.pipelines.precompute.worlds import rows_of, save_tiny_ram

SIZE = (80, 60)
KEPT = "kept"


@dataclass(frozen=True)
class Case:
    """An image of the annotation file.

    Attributes:
        name: the file name.
        what: the property that is tested.
        expected: `kept`, or `stage: reason` of its quarantine.
        content: the file's bytes; None: no file is written.
        annotated: width and height in the annotation file.
        captions: captions in the annotation file.
    """

    name: str
    what: str
    expected: str
    content: bytes | None
    annotated: tuple[int, int] | None = SIZE
    captions: Sequence[Any] = ("a red thing on the left", "red beside blue")


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """Return an image of color ramps with a red half."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([255 - x, y, x], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Encode an image in a file format of Pillow."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    """Return a JPEG that is stored rotated, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(), exif=exif)


def lossless_jpeg() -> bytes:
    """Return a JPEG whose header declares the lossless process, which decoders do not support."""
    return encoded(picture()).replace(b"\xff\xc0", b"\xff\xc3", 1)


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header has this size, independent of its pixels."""
    content = encoded(picture(), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def scratched_png() -> bytes:
    """Return a PNG with a changed byte in its pixels, so that its checksum is wrong."""
    content = bytearray(encoded(picture(), "PNG"))
    content[80] ^= 0xFF
    return bytes(content)


_GREEN = Image.new("RGB", SIZE, (0, 200, 0))
_JPEG = encoded(picture())

IMAGES = (
    Case("plain.jpg", "a good JPEG", KEPT, _JPEG),
    Case("progressive.jpg", "progressive JPEG", KEPT, encoded(picture(), progressive=True)),
    Case("cmyk.jpg", "CMYK JPEG", KEPT, encoded(picture().convert("CMYK"))),
    Case("gray.jpg", "grayscale JPEG", KEPT, encoded(picture().convert("L"))),
    Case("sixteen.png", "16-bit grayscale PNG", KEPT, encoded(Image.new("I;16", SIZE, 40_000), "PNG")),
    Case("bilevel.png", "1-bit PNG", KEPT, encoded(picture().convert("1"), "PNG")),
    Case("palette.png", "palette PNG", KEPT, encoded(picture().convert("P"), "PNG")),
    Case("alpha.png", "RGBA PNG", KEPT, encoded(picture().convert("RGBA"), "PNG")),
    Case("animated.gif", "animated GIF: the first frame", KEPT,
         encoded(picture(), "GIF", save_all=True, append_images=[_GREEN])),
    Case("modern.webp", "WebP", KEPT, encoded(picture(), "WEBP")),
    Case("png_inside.jpg", "a PNG called .jpg", KEPT, encoded(picture(), "PNG")),
    Case("turned.jpg", "EXIF-rotated, annotated upright", KEPT, turned(), (60, 80)),
    Case("resized.jpg", "a resized copy of what was annotated", KEPT, _JPEG, (640, 480)),
    Case("unsized.jpg", "an annotation without a size", KEPT, _JPEG, None),
    Case("ünï cödé #1 %20.jpg", "a file name of spaces, # and accents", KEPT, _JPEG),
    Case("blank_caption.jpg", "one empty caption among good ones", KEPT, _JPEG, captions=("", "a red thing")),
    Case("long_caption.jpg", "a caption of 20,000 words", KEPT, _JPEG, captions=("red " * 20_000, "a red thing")),
    Case("turned_raw.jpg", "EXIF-rotated, annotated as stored", "image: size_mismatch", turned(), (80, 60)),
    Case("other.jpg", "another image than was annotated", "image: size_mismatch", _JPEG, (60, 60)),
    Case("truncated.jpg", "the second half is missing", "image: truncated", _JPEG[: len(_JPEG) // 2]),
    Case("head_only.png", "only the first bytes are there", "image: truncated", encoded(picture(), "PNG")[:12]),
    Case("empty.jpg", "no bytes", "image: empty", b""),
    Case("page.jpg", "a web page called .jpg", "image: not_an_image", b"<html><body>404 Not Found</body></html>"),
    Case("archive.png", "a zip archive called .png", "image: not_an_image", b"PK\x03\x04" + bytes(200)),
    Case("drawing.svg", "SVG", "image: unsupported", b"<svg xmlns='http://www.w3.org/2000/svg' width='9'/>"),
    Case("script.eps", "PostScript", "image: unsupported", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    Case("float.tif", "32-bit float TIFF", "image: unsupported", encoded(Image.new("F", SIZE, 0.5), "TIFF")),
    Case("lossless.jpg", "lossless JPEG", "image: damaged", lossless_jpeg()),
    Case("scratched.png", "a flipped byte in a PNG", "image: damaged", scratched_png()),
    Case("no_width.png", "a PNG of width 0", "image: damaged", png_of_size(0, 60)),
    Case("bomb.png", "a decompression bomb of 14400 megapixels", "image: too_large", png_of_size(120_000, 120_000)),
    Case("big.png", "121 megapixels of one color", "image: too_large",
         encoded(Image.new("1", (11_000, 11_000)), "PNG")),
    Case("missing.jpg", "no file", "image: missing", None),
    Case("folder.jpg", "a folder in the file's place", "image: not_a_file", None),
    Case("locked.jpg", "no permission to read", "image: unreadable", _JPEG),
    Case("no_captions.jpg", "an image without captions", "annotation: no_caption", _JPEG, captions=()),
    Case("zero_width.jpg", "an annotated width of 0", "annotation: wrong_value", _JPEG, (0, 60)),
)  # fmt: skip

# Further entries of the annotation file: description, entry, reason of quarantine.
_IMAGE_ENTRIES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("an id that is there already", {"id": 1, "file_name": "plain.jpg", "width": 80, "height": 60}, "duplicate_id"),
    ("an image without file_name", {"id": 900, "width": 80, "height": 60}, "missing_key"),
    ("a list instead of an id", {"id": [1], "file_name": "plain.jpg"}, "wrong_type"),
)
_CAPTION_ENTRIES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("a caption of an unknown image", {"image_id": 901, "caption": "who is this"}, "unknown_image"),
    ("a number instead of a caption", {"image_id": 1, "caption": 7}, "wrong_type"),
)
ENTRIES = (*_IMAGE_ENTRIES, *_CAPTION_ENTRIES)
# In addition to the entries: the blank caption of a kept image.
BLANK_CAPTIONS = 1


def cases() -> list[Case]:
    """Return the cases that apply to the current user: root can read every file."""
    return [case for case in IMAGES if case.name != "locked.jpg" or os.geteuid() != 0]


def write_inputs(folder: Path) -> Path:
    """Write the images to `images/`, write the annotation file, and return its path."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number, case in enumerate(cases(), start=1):
        if case.content is not None:
            (images / case.name).write_bytes(case.content)
        size = {"width": case.annotated[0], "height": case.annotated[1]} if case.annotated else {}
        entries.append({"id": number, "file_name": case.name, **size})
        captions += [{"image_id": number, "caption": caption} for caption in case.captions]
    (images / "folder.jpg").mkdir(exist_ok=True)
    if (images / "locked.jpg").exists():
        (images / "locked.jpg").chmod(0)
    document = {
        "images": [*entries, *(entry for _, entry, _ in _IMAGE_ENTRIES)],
        "annotations": [*captions, *(entry for _, entry, _ in _CAPTION_ENTRIES)],
    }
    path = folder / "captions.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def make_config(folder: Path, annotations: Path) -> PrecomputeConfig:
    """Return the configuration of a run that accepts any share of bad inputs."""
    return PrecomputeConfig(
        source=SourceConfig(annotations=str(annotations), images=str(folder / "images")),
        tagger=TaggerConfig(path=str(save_tiny_ram(folder / "ram"))),
        out=str(folder / "runs"),
        shard_rows=16,
        max_bad_fraction=1.0,
        ray=RayConfig(address="local"),
    )


def outcomes(result: str) -> tuple[dict[str, str], Counter[str]]:
    """Return the outcome of every image by file name, and the number of quarantined annotations by reason."""
    kept = {os.path.basename(row["uri"]): KEPT for row in rows_of(result)}
    images, bad = dict(kept), Counter[str]()
    for row in rows_of(result, "quarantine"):
        if row["stage"] == "annotation":
            bad[row["reason"]] += 1
        if row["uri"] and os.path.basename(row["uri"]) not in kept:
            images[os.path.basename(row["uri"])] = f"{row['stage']}: {row['reason']}"
    return images, bad


def expected_annotations() -> Counter[str]:
    """Return the expected number of quarantined annotations by reason."""
    image_reasons = [case.expected.split(": ")[1] for case in cases() if case.expected.startswith("annotation")]
    return Counter([*image_reasons, *(reason for *_, reason in ENTRIES), *["empty_text"] * BLANK_CAPTIONS])


def main(folder: Path) -> int:
    """Write the inputs, run precompute, and print the table; return 1 if an outcome is not as expected."""
    make: Callable[[str, str, str, str], str] = "{:<22} {:<40} {:<24} {}".format
    result = precompute(make_config(folder, write_inputs(folder)))
    images, annotations = outcomes(result.path)
    wrong = annotations != expected_annotations()
    print(make("input", "property", "outcome", ""))
    for case in cases():
        outcome = images.get(case.name, "LOST")
        wrong |= outcome != case.expected
        print(make(case.name, case.what, outcome, "" if outcome == case.expected else f"expected {case.expected}"))
    for what, entry, reason in ENTRIES:
        print(make(json.dumps(entry)[:22], what, f"annotation: {reason}" if annotations[reason] else "LOST", ""))
    print(make("(one empty caption)", "its image is kept", f"annotation: empty_text x {annotations['empty_text']}", ""))
    print(result.as_json())
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
