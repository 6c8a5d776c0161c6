"""A tagger outside the package, in one file: the colors of an image, with the means of its channels as confidences."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.tags import ImageTags
from pipelines.core import storage
from pipelines.precompute.config import Precision
from pipelines.precompute.taggers import Tagger, register_tagger

COLORS = ("red", "green", "blue")


class ColorTagger(Tagger):
    """Colors from a folder with `colors.json`: {"thresholds": {color: threshold}}."""

    image_size = 8
    needs_model = True

    @classmethod
    def accepts(cls, folder: str) -> bool:
        return storage.exists(storage.join(folder, "colors.json"))

    def prepare(self) -> None:
        self.thresholds = storage.read_json(storage.join(self.config.path, "colors.json"))["thresholds"]

    def setup(self, device: str, threads: int, precision: Precision) -> None:
        self.scale = 1 / 255

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        assert pixels is not None
        means = (pixels * self.scale).mean(axis=(1, 2))
        tags = [[(color, float(mean)) for color, mean in zip(COLORS, row, strict=True)] for row in means]
        return [sorted((tag for tag in row if tag[1] > self.config.floor), key=lambda tag: -tag[1]) for row in tags]


class VersionedColorTagger(ColorTagger):
    """The same with a digest that is not that of the files."""

    def digest(self) -> str:
        return f"{super().digest()}+v2"


def write_colors(folder: Path) -> str:
    """Write a model of the color tagger and return its folder."""
    folder.mkdir()
    (folder / "colors.json").write_text(json.dumps({"thresholds": {"red": 0.9, "green": 0.1, "blue": 0.5}}))
    return str(folder)


register_tagger("colors", ColorTagger)
