"""Paint scenes with PIL. Boxes are exact: each shape touches all edges of its box, without antialiasing."""

import io
import math
import random
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from pipelines.sample_world.scenes import Scene, SceneObject

ImageFormat = Literal["png", "jpeg"]

_LINE = 14  # pixels, height of a line of text on a contact sheet

_COLORS = {
    "red": (214, 32, 36),
    "blue": (38, 84, 208),
    "green": (30, 148, 62),
    "yellow": (246, 210, 32),
    "purple": (122, 44, 158),
    "orange": (242, 118, 26),
    "black": (26, 26, 28),
    "pink": (244, 110, 182),
}
_BACKGROUNDS = {
    "white": (250, 250, 250),
    "gray": (176, 178, 182),
    "beige": (238, 226, 200),
    "light blue": (196, 222, 244),
    "light green": (204, 236, 204),
}


def draw_scene(scene: Scene, seed: str) -> Image.Image:
    """Return the scene as an RGB image. `seed` varies the brightness of each object's color a little."""
    rng = random.Random(seed)
    image = Image.new("RGB", (scene.width, scene.height), _BACKGROUNDS[scene.background])
    for item in scene.objects:
        tint = rng.randint(-14, 14)
        color = tuple(max(0, min(255, channel + tint)) for channel in _COLORS[item.color])
        image.paste(color, item.box, shape_mask(item.shape, item.width, item.height))
    return image


@lru_cache(maxsize=4096)
def shape_mask(shape: str, width: int, height: int) -> Image.Image:
    """Return the mask (mode L, 0 or 255) of a shape that touches all four edges of `width` × `height` pixels.

    Raises:
        ValueError: the shape is unknown.
    """
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    right, bottom = width - 1, height - 1
    match shape:
        case "circle" | "ellipse":
            draw.ellipse((0, 0, right, bottom), fill=255)
        case "square" | "rectangle":
            draw.rectangle((0, 0, right, bottom), fill=255)
        case "triangle":
            draw.polygon([(right / 2, 0), (right, bottom), (0, bottom)], fill=255)
        case "diamond":
            draw.polygon([(right / 2, 0), (right, bottom / 2), (right / 2, bottom), (0, bottom / 2)], fill=255)
        case "star":
            draw.polygon(_star(right, bottom), fill=255)
        case "cross":
            arm_x, arm_y = right // 3, bottom // 3
            draw.rectangle((arm_x, 0, right - arm_x, bottom), fill=255)
            draw.rectangle((0, arm_y, right, bottom - arm_y), fill=255)
        case _:
            raise ValueError(f"The shape {shape!r} is unknown; use a key of scenes.SHAPES.")
    return mask


def _star(right: int, bottom: int) -> list[tuple[float, float]]:
    """Return the corners of a five-pointed star that is stretched to touch every edge."""
    points = []
    for corner in range(10):
        radius = 1.0 if corner % 2 == 0 else 0.45
        angle = math.pi * (corner / 5 - 0.5)
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    left, wide = min(x for x, _ in points), max(x for x, _ in points) - min(x for x, _ in points)
    top, high = min(y for _, y in points), max(y for _, y in points) - min(y for _, y in points)
    return [(round((x - left) / wide * right), round((y - top) / high * bottom)) for x, y in points]


def painted_area(item: SceneObject) -> int:
    """Return the number of pixels that the object covers."""
    return shape_mask(item.shape, item.width, item.height).histogram()[255]


def encode_image(image: Image.Image, form: ImageFormat) -> bytes:
    """Encode an image as a file. Equal images give equal bytes."""
    buffer = io.BytesIO()
    if form == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def contact_sheet(
    entries: Sequence[tuple[Image.Image, Sequence[SceneObject], Sequence[str]]], columns: int = 4, width: int = 360
) -> Image.Image:
    """Return a preview: enlarged images in a grid, with their boxes, and their texts below.

    Args:
        entries: for each cell the image, the objects whose boxes are drawn, and the texts, which are wrapped.
        columns: number of cells in a row.
        width: width of a cell in pixels.
    """
    font = ImageFont.load_default(size=11)
    scale = max(1, (width - 12) // max(max(image.size) for image, _, _ in entries))
    texts = ["\n".join(textwrap.fill(text, width // 6) for text in cell_texts) for _, _, cell_texts in entries]
    side = scale * max(image.height for image, _, _ in entries)
    height = side + 16 + _LINE * max(text.count("\n") + 1 for text in texts)
    sheet = Image.new("RGB", (columns * width, math.ceil(len(entries) / columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, objects, _) in enumerate(entries):
        left, top = (number % columns) * width + 6, (number // columns) * height + 6
        sheet.paste(image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST), (left, top))
        for item in objects:
            x1, y1, x2, y2 = (scale * edge for edge in item.box)
            draw.rectangle((left + x1 - 1, top + y1 - 1, left + x2, top + y2), outline="black")
        for line, text in enumerate(texts[number].split("\n")):
            draw.text((left, top + side + 4 + _LINE * line), text, fill="black", font=font)
    return sheet
