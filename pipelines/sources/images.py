"""Picture files as RGB images: one place that decides what every kind of file becomes, or why it is refused.

Rules, in this order:

* Read are JPEG (also progressive, MPO), PNG, GIF, WebP, BMP, TIFF, JPEG 2000, AVIF and PNM, recognized by content: the
  name's ending does not matter. Formats that run programs or fetch files (EPS, SVG, PDF) are never opened.
* Animated or multi-page: the first frame.
* More than `max_pixels` pixels: refused by the header, before anything is decompressed.
* EXIF orientation is applied: the picture stands upright. EXIF that cannot be read counts as absent.
* Transparent (RGBA, LA, palette or key color): composited on white.
* Grayscale and 1-bit: the same value in the three channels; 16 bits a channel: the upper eight.
* Palette, CMYK, YCCK, YCbCr, LAB: Pillow's plain conversion to RGB; color profiles are not applied.
* 32-bit integers and floats have no agreed range: refused.

A picture and its annotation agree when their sizes are equal or have the same proportions (a resized copy); the
annotated size stays the one that boxes are measured in. Anything else, such as a picture whose EXIF orientation its
annotator did not apply, is refused: its boxes would point elsewhere.
"""

import contextlib
import struct
import warnings
from io import BytesIO
from typing import Literal, get_args

from PIL import Image

from pipelines.core import storage

Reason = Literal[
    "missing",  # no such file
    "not_a_file",  # a folder stands there
    "unreadable",  # permission refused, or the store does not answer
    "empty",  # no bytes
    "not_an_image",  # text, HTML, an archive …
    "unsupported",  # an image format or pixel type that is not read
    "truncated",  # the end is missing
    "damaged",  # bytes that its own format does not allow
    "too_large",  # more pixels than `max_pixels`
    "size_mismatch",  # other proportions than its annotation says
]
REASONS: tuple[str, ...] = get_args(Reason)

MAX_PIXELS = 100_000_000
"""Default limit of width × height. Pillow's own (178,956,970) holds beyond it, whatever is asked for."""
BACKGROUND = (255, 255, 255)

Image.init()
_WANTED = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
_FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)  # a Pillow may be built without some of them
_HEADS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")
_OTHER_HEADS = (b"%!PS", b"<svg", b"8BPS", b"\xff\x0a", b"\0\0\1\0", b"\0\0\0\x0cJXL", b"DDS ", b"qoif", b"v/1\1")
# What Pillow's decoders raise on hostile bytes.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ArithmeticError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    struct.error,
)
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """A file that gives no picture.

    Attributes:
        reason: one of `REASONS`.
        detail: what exactly was found, for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def load_image(
    uri: str, content: bytes | None = None, *, max_pixels: int = MAX_PIXELS, draft: int | None = None
) -> Image.Image:
    """Return the picture at a local path, `s3://…` or `gs://…`, upright and RGB.

    Args:
        uri: where the file is.
        content: the encoded bytes that a table holds (`tables.IMAGE_BYTES`), which are read instead of the file; None:
            it holds none.
        max_pixels: limit of width × height.
        draft: see `decode_image`.

    Raises:
        BadImage: there is no picture to be had, and why.
    """
    return decode_image(read_image_bytes(uri) if content is None else content, max_pixels=max_pixels, draft=draft)


def read_image_bytes(uri: str) -> bytes:
    """Return the encoded bytes at a URI.

    Raises:
        BadImage: missing, not_a_file, unreadable or empty.
        storage.Unavailable: the object store is out of order, which says nothing of the image.
    """
    try:
        content = storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise BadImage("missing", f"{uri} does not exist") from error
    except storage.Unavailable:
        raise
    except OSError as error:
        if not storage.is_remote(uri) and storage.is_folder(uri):
            raise BadImage("not_a_file", f"{uri} is a folder") from error
        raise BadImage("unreadable", str(error)) from error
    if not content:
        raise BadImage("empty", f"{uri} has no bytes")
    return content


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Image.Image:
    """Encoded bytes as an upright RGB picture, by the rules of this module.

    Args:
        content: the file's bytes.
        max_pixels: limit of width × height.
        draft: when set, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size while both sides stay at least this many
            pixels: several times faster for photographs that are resized to that size anyway, with slightly
            different pixels.

    Raises:
        BadImage: the bytes are no picture that is read here.
    """
    return decode_with_size(content, max_pixels=max_pixels, draft=draft)[0]


def decode_with_size(
    content: bytes, *, max_pixels: int = MAX_PIXELS, draft: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Like `decode_image`, with the width and height that the upright picture has without `draft`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of size (checked here) and of odd metadata (harmless)
        image = _open(content)
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage("too_large", f"{width} x {height} is more than {max_pixels} pixels")
        try:
            upright = _UPRIGHT.get(_orientation(image))
            if draft is not None:
                image.draft(None, (draft, draft))  # None keeps the file's color space
            image.load()
            if image.format == "PNG":  # its decoder passes over wrong checksums
                Image.open(BytesIO(content), formats=("PNG",)).verify()
            rgb = _to_rgb(image)
        except _DECODER_ERRORS as error:
            raise BadImage("truncated" if "truncated" in str(error) else "damaged", _sentence(error)) from error
    if upright is None:
        return rgb, (width, height)
    turned = rgb.transpose(upright)
    swapped = upright not in (
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.ROTATE_180,
    )
    return turned, (height, width) if swapped else (width, height)


def check_size(found: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Refuse a picture whose proportions are not its annotation's (each side may be rounded by a pixel).

    Args:
        found: width and height of the upright picture.
        annotated: width and height that its annotation gives.

    Raises:
        BadImage: size_mismatch.
    """
    width, height = found
    if min(annotated) > 0:
        scale = width / annotated[0]
        if abs(height - annotated[1] * scale) <= max(1.0, scale):
            return
    turned = ", turned by its EXIF orientation" if (height, width) == annotated else ""
    raise BadImage("size_mismatch", f"the picture is {width} x {height}{turned}, its annotation says "
                   f"{annotated[0]} x {annotated[1]}")  # fmt: skip


def _open(content: bytes) -> Image.Image:
    """Return the picture with its header read only."""
    if not content:
        raise BadImage("empty", "no bytes")
    try:
        return Image.open(BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("too_large", _sentence(error)) from error
    except _DECODER_ERRORS as error:  # among them UnidentifiedImageError
        raise _without_header(content) from error


def _without_header(content: bytes) -> BadImage:
    """Tell the torn head of a known format from an image format that is not read and from no image at all."""
    head = content[:16]
    shown = f"begins with {head!r}"
    if head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"")):
        # A JPEG's header ends where its scan starts; those of the others are far shorter.
        torn = b"\xff\xda" not in content if head.startswith(b"\xff\xd8") else len(content) < 64
        return BadImage("truncated" if torn else "damaged", f"{shown}, but has no readable header")
    if content.lstrip()[:512].startswith(_OTHER_HEADS) or head[4:8] == b"ftyp" or b"<svg" in content[:512]:
        return BadImage("unsupported", f"{shown}; save it as JPEG or PNG")
    return BadImage("not_an_image", shown)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation (1 upright … 8), 1 where there is none that can be read."""
    with contextlib.suppress(*_DECODER_ERRORS):
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        import numpy as np

        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImage("unsupported", f"pixels of Pillow's mode {image.mode!r} (32 bits) have no agreed range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, BACKGROUND)
        image.paste(rgba, mask=rgba.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
