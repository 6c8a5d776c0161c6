"""A small world of drawn images with its tables, and a tiny LION that reads it."""

import dataclasses
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
from models.lion.vocabulary import bert_vocabulary, t5_vocabulary
from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor
from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table
from pipelines.sources.boxes import format_box

COLORS, SHAPES = ("red", "green", "blue", "black"), ("circle", "square")


@dataclasses.dataclass(frozen=True)
class World:
    """The folders of the tables, and their rows."""

    tagged: str
    instructions: str
    images: list[dict[str, Any]]
    samples: list[dict[str, Any]]

    @property
    def texts(self) -> list[str]:
        """All text of the world, for vocabularies."""
        words = [text for row in self.samples for text in (row["instruction"], *row["answers"])]
        return [*words, *(row["caption"] for row in self.images), "dog: 0.98, ball: 0.96", "0 1 2 3 4 5 6 7 8 9"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """48 images of a colored shape, each with captions, a question and a box."""
    root = tmp_path_factory.mktemp("world")
    images, samples = [], []
    for number in range(48):
        color, shape = COLORS[number % 4], SHAPES[number % 3 % 2]
        corner = (7 * number % 20, 11 * number % 20)
        box = (*corner, corner[0] + 16 + number % 9, corner[1] + 18)
        picture = Image.new("RGB", (48, 48), "white")
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=color)
        uri = str(root / f"{number}.png")
        picture.save(uri)
        name, captions = f"image-{number}", [f"a {color} {shape}", f"there is a {shape} in {color}, number {number}"]
        tags = [{"tag": color, "score": 0.95}, {"tag": shape, "score": 0.7}, {"tag": "cloud", "score": 0.1}]
        images.append({"image_id": name, "uri": uri, "width": 48, "height": 48, "source": "drawn", "tags": tags,
                       "captions": captions, "caption": captions[1], "caption_index": 1})  # fmt: skip
        boxed = f"Answer: {format_box([value / 48 for value in box])}"
        for task, level, question, answers in (
            ("caption", "image", "Describe the image.", captions),
            ("vqa", "image", "What color is the shape?", [color]),
            ("rec", "region", f"Where is the {shape}?", [boxed]),
        ):
            samples.append({"sample_id": f"{task}-{number}", "image_id": name, "task": task, "level": level,
                            "instruction": question, "answers": answers})  # fmt: skip
    for folder, rows, schema in (("tagged", images, TAGGED), ("instructions", samples, INSTRUCTIONS)):
        (root / folder).mkdir()
        pq.write_table(to_table(rows, schema), root / folder / "part-0.parquet")
    return World(str(root / "tagged"), str(root / "instructions"), images, samples)


@pytest.fixture(scope="session")
def tag_encoder(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny tag encoder with random weights and a small vocabulary."""
    folder = str(tmp_path_factory.mktemp("tag_encoder"))
    torch.manual_seed(0)
    config = TagEncoderConfig.preset("tiny")
    config.bert.vocab_size = 512
    TagEncoder(config).save_pretrained(folder)
    TagEncoderProcessor(bert_vocabulary(world.texts, 512)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lion(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny LION with random weights, a static prompt and small vocabularies."""
    folder = str(tmp_path_factory.mktemp("lion"))
    torch.manual_seed(0)
    config = LionConfig.preset("tiny", text_config={"vocab_size": 512}, qformer_config={"vocab_size": 512})
    model = LionForConditionalGeneration(config)
    model.save_pretrained(folder)
    vocabularies = t5_vocabulary(world.texts, 512), bert_vocabulary(world.texts, 512)
    LionProcessor.for_config(config, *vocabularies).save_pretrained(folder)
    return folder
