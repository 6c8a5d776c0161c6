"""Decode image files to RGB. These rules decide how each kind of file is converted, or why it is rejected.

The rules, in this order:

* JPEG (also progressive, MPO), PNG, GIF, WebP, BMP, TIFF, JPEG 2000, AVIF and PNM are read. They are recognized by
  content; the suffix of the name does not matter. EPS, SVG and PDF are never opened, because their readers can run
  programs or fetch files.
* Animated or multi-page: the first frame.
* More than `max_pixels` pixels: rejected by the header, before anything is decompressed.
* The EXIF orientation is applied, so that the image is upright. EXIF that cannot be read is ignored.
* Transparent (RGBA, LA, palette or key color): blended with white.
* Grayscale and 1-bit: the same value in the three channels. 16 bits per channel: the upper eight.
* Palette, CMYK, YCCK, YCbCr, LAB: converted by Pillow; color profiles are not applied.
* 32-bit integers and floats: rejected, because their range is unknown.

An image fits its annotation if their sizes are equal or have the same proportions (a resized copy). Boxes are always
measured in the annotated size. Any other size is rejected, because the boxes would be wrong: for example if the
annotator did not apply the EXIF orientation.
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
    "not_a_file",  # the path is a folder
    "unreadable",  # no permission, or the object store does not answer
    "empty",  # no bytes
    "not_an_image",  # text, HTML, an archive …
    "unsupported",  # an image format or pixel type that this module does not read
    "truncated",  # the end is missing
    "damaged",  # bytes that the image format does not allow
    "too_large",  # more pixels than `max_pixels`
    "size_mismatch",  # other proportions than in its annotation
]
REASONS: tuple[str, ...] = get_args(Reason)

MAX_PIXELS = 100_000_000
"""Default limit of width × height. Pillow's limit (178,956,970) applies even if `max_pixels` is larger."""
BACKGROUND = (255, 255, 255)

Image.init()  # loads all plugins of Pillow, so that `Image.OPEN` is complete
_READABLE = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
_FORMATS = tuple(name for name in _READABLE if name in Image.OPEN)  # Pillow may be built without some of them
_HEADS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")
_OTHER_HEADS = (b"%!PS", b"<svg", b"8BPS", b"\xff\x0a", b"\0\0\1\0", b"\0\0\0\x0cJXL", b"DDS ", b"qoif", b"v/1\1")
# The exceptions that Pillow's decoders raise for damaged or hostile bytes.
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
    """An image file that cannot be used.

    Attributes:
        reason: one of `REASONS`.
        detail: a sentence about the file.
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
    """Return an image as upright RGB.

    Args:
        uri: a local path, `s3://…` or `gs://…`.
        content: the encoded bytes, if a table has them (`tables.IMAGE_BYTES`); None: read the file.
        max_pixels: limit of width × height.
        draft: see `decode_image`.

    Raises:
        BadImage: the file cannot be read or is not a usable image.
    """
    return decode_image(read_image_bytes(uri) if content is None else content, max_pixels=max_pixels, draft=draft)


def read_image_bytes(uri: str) -> bytes:
    """Return the encoded bytes at a URI.

    Raises:
        BadImage: missing, not_a_file, unreadable or empty.
        storage.Unavailable: the object store does not answer; the image may be good.
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
    """Return encoded bytes as an upright RGB image, by the rules of this module.

    Args:
        content: the bytes of the file.
        max_pixels: limit of width × height.
        draft: the smallest side in pixels that is needed. A large JPEG is then decoded at 1/2, 1/4 or 1/8 of its size,
            which is several times faster; pixels differ slightly. None: decode the full size.

    Raises:
        BadImage: the bytes are not a usable image.
    """
    return decode_with_size(content, max_pixels=max_pixels, draft=draft)[0]


def decode_with_size(
    content: bytes, *, max_pixels: int = MAX_PIXELS, draft: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Return the image as `decode_image` does, and the width and height of the upright image at full size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large sizes (checked below) and of odd metadata (harmless)
        image = _open(content)
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage("too_large", f"{width} x {height} is more than {max_pixels} pixels")
        try:
            upright = _UPRIGHT.get(_orientation(image))
            if draft is not None:
                image.draft(None, (draft, draft))  # None keeps the file's color space
            image.load()
            if image.format == "PNG":  # the PNG decoder ignores wrong checksums
                Image.open(BytesIO(content), formats=("PNG",)).verify()
            rgb = _to_rgb(image)
        except _DECODER_ERRORS as error:
            raise BadImage("truncated" if "truncated" in str(error) else "damaged", _sentence(error)) from error
    if upright is None:
        return rgb, (width, height)
    # Rotation comes last, because a draft has fewer pixels to rotate.
    turned = rgb.transpose(upright)
    swapped = upright not in (
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.ROTATE_180,
    )
    return turned, (height, width) if swapped else (width, height)


def check_size(decoded: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Check that an image has the proportions of its annotation (each side may be rounded by a pixel).

    Args:
        decoded: width and height of the upright image.
        annotated: width and height in the annotation.

    Raises:
        BadImage: size_mismatch.
    """
    width, height = decoded
    if min(annotated) > 0:
        scale = width / annotated[0]
        # A pixel of rounding in the annotated height is `scale` pixels of this image.
        if abs(height - annotated[1] * scale) <= max(1.0, scale):
            return
    turned = ", turned by its EXIF orientation" if (height, width) == annotated else ""
    raise BadImage("size_mismatch", f"the picture is {width} x {height}{turned}, its annotation says "
                   f"{annotated[0]} x {annotated[1]}")  # fmt: skip


def _open(content: bytes) -> Image.Image:
    """Return the image without its pixels: only the header is read."""
    if not content:
        raise BadImage("empty", "no bytes")
    try:
        return Image.open(BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("too_large", _sentence(error)) from error
    except _DECODER_ERRORS as error:  # among them UnidentifiedImageError
        raise _without_header(content) from error


def _without_header(content: bytes) -> BadImage:
    """Return the error for bytes without a readable header: a damaged image, another image format, or no image."""
    head = content[:16]
    start = f"begins with {head!r}"
    if head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"")):
        # A JPEG's header ends at the start of its scan (ff da). The headers of other formats fit into 64 bytes.
        cut_off = b"\xff\xda" not in content if head.startswith(b"\xff\xd8") else len(content) < 64
        return BadImage("truncated" if cut_off else "damaged", f"{start}, but has no readable header")
    if content.lstrip()[:512].startswith(_OTHER_HEADS) or head[4:8] == b"ftyp" or b"<svg" in content[:512]:
        return BadImage("unsupported", f"{start}; save it as JPEG or PNG")
    return BadImage("not_an_image", start)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 if it is absent or cannot be read."""
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
