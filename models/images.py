"""Images of any PIL mode as RGB, as every image processor of `models/` needs them."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an RGB image of any PIL mode.

    Transparent pixels are blended with white. 16-bit gray keeps its upper 8 bits, where PIL would clip it to white.
    Palettes, gray, CMYK, LAB and other modes convert as PIL does. An EXIF orientation is not applied: boxes and
    captions refer to the image as the code that opened the file returned it.

    Raises:
        ValueError: a 32-bit integer or float image ("I", "F") has values outside 0 to 255, so its range is unknown.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
            raise ValueError(
                f"An image of mode {image.mode!r} has values outside 0 to 255; scale it to 8 bits before tagging."
            )
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        # PIL converts premultiplied gray (La) to LA and to no other mode.
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image.convert("RGB")
