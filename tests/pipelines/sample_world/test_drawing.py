"""Drawn images: boxes are exact to the pixel, masks touch their edges, files restore the image."""

import io

import numpy as np
import pytest
from PIL import Image, ImageChops

from pipelines.sample_world.drawing import contact_sheet, draw_scene, encode_image, painted_area, shape_mask
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import SHAPES, Scene


def test_boxes_are_tight_around_what_is_painted(entries: list[Entry]) -> None:
    """Draw each scene with and without an object: the pixels that differ have exactly the object's box."""
    for entry in entries[::8]:
        whole = draw_scene(entry.scene, "0")
        for number, item in enumerate(entry.scene.objects):
            # The object is painted last, so that leaving it out does not change the tints of the others.
            order = (*entry.scene.objects[:number], *entry.scene.objects[number + 1 :], item)
            complete = draw_scene(_with(entry.scene, order), "0")
            without = draw_scene(_with(entry.scene, order[:-1]), "0")
            assert ImageChops.difference(complete, without).getbbox() == item.box
        assert whole.size == (entry.scene.width, entry.scene.height)


def _with(scene: Scene, objects: tuple) -> Scene:
    return Scene(scene.width, scene.height, scene.background, objects)


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize(("width", "height"), [(9, 9), (13, 13), (35, 35), (21, 11), (11, 21)])
def test_masks_touch_every_edge(shape: str, width: int, height: int) -> None:
    assert shape_mask(shape, width, height).getbbox() == (0, 0, width, height)


def test_the_area_is_the_number_of_painted_pixels(entries: list[Entry]) -> None:
    for item in entries[0].scene.objects:
        mask = np.asarray(shape_mask(item.shape, item.width, item.height))
        assert painted_area(item) == (mask == 255).sum()
        assert (painted_area(item) == item.width * item.height) == (item.shape in ("square", "rectangle"))


def test_masks_of_different_shapes_differ() -> None:
    masks = [np.asarray(shape_mask(shape, 15, 15)) for shape in SHAPES if shape not in ("ellipse", "rectangle")]
    for number, mask in enumerate(masks):
        assert all((mask != other).mean() > 0.1 for other in masks[number + 1 :])


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_files_restore_the_image(entries: list[Entry], form: str) -> None:
    image = entries[0].draw()
    content = encode_image(image, "png" if form == "png" else "jpeg")
    decoded = Image.open(io.BytesIO(content))
    assert decoded.format == form.upper()
    difference = np.abs(np.asarray(decoded, dtype=int) - np.asarray(image, dtype=int))
    assert difference.mean() <= (0 if form == "png" else 4)


def test_colors_vary_with_the_seed(entries: list[Entry]) -> None:
    scene = entries[0].scene
    item = scene.objects[0]
    x, y = (int(value) for value in item.center)
    painted = {draw_scene(scene, str(seed)).getpixel((x, y)) for seed in range(20)}
    assert len(painted) > 5


def test_a_contact_sheet_has_a_cell_for_each(entries: list[Entry]) -> None:
    cells = [(entry.draw(), entry.scene.objects, entry.captions) for entry in entries[:6]]
    sheet = contact_sheet(cells, columns=3, width=300)
    assert sheet.width == 900
    assert len(set(np.asarray(sheet.convert("L"))[-60:].ravel())) > 2, "the texts of the last row are drawn"
