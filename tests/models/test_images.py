"""Images of every PIL mode become RGB."""

import pytest
import torch
from PIL import Image

from models.images import to_rgb
from models.ram import RamProcessor


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]
)
def test_every_mode_of_8_bits_becomes_rgb(mode: str) -> None:
    assert to_rgb(Image.new(mode, (10, 10))).mode == "RGB"
    processor = RamProcessor(["dog"], image_size=48)
    assert torch.isfinite(processor(Image.new(mode, (10, 10))).pixel_values).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_gray_is_scaled_and_not_clipped(mode: str) -> None:
    assert to_rgb(Image.new(mode, (4, 4), 0x8000)).getpixel((0, 0)) == (128, 128, 128)


def test_transparent_pixels_become_white() -> None:
    assert to_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value"), [("I", 70000), ("F", -1.0), ("F", float("nan"))])
def test_values_of_unknown_range_are_refused(mode: str, value: float) -> None:
    with pytest.raises(ValueError, match="scale it to 8 bits"):
        to_rgb(Image.new(mode, (2, 2), value))
