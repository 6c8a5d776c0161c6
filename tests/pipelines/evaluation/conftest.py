"""A tiny LION with a dynamic prompt, and a few images with questions of every task."""

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table

COLORS = ("red", "green", "blue", "yellow")
IMAGES = 8


class World(NamedTuple):
    """Paths of the inputs of an evaluation."""

    model: str
    data: str
    tagged: str


def instruction(task: str, image: int) -> dict[str, Any]:
    """Return a row of the instructions table about an image of a single color."""
    color = COLORS[image % len(COLORS)]
    questions: dict[str, tuple[str, list[str], list[float] | None]] = {
        "caption": ("Describe the image.", [f"a {color} picture", f"all is {color}"], None),
        "vqa": ("What color is it?", [color] * 10, None),
        "rec": (f"Where is {color}?", ["Answer: [0.000,0.000,1.000,1.000]"], [0.0, 0.0, 1.0, 1.0]),
        "pope": (f"Is there {color} in the image?", ["yes"], None),
    }
    text, answers, box = questions[task]
    return {
        "sample_id": f"colors:{task}:{image}",
        "image_id": str(image),
        "task": task,
        "level": "region" if task == "rec" else "image",
        "instruction": text,
        "answers": answers,
        "box": box,
    }


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Write eight images (one truncated) with four tasks each, and a tiny model with random weights."""
    import torch

    from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
    from models.lion.vocabulary import bert_vocabulary, t5_vocabulary

    root = tmp_path_factory.mktemp("world")
    images = []
    for image in range(IMAGES):
        color = COLORS[image % len(COLORS)]
        path = root / f"{image}.png"
        Image.new("RGB", (40, 30), color).save(path)
        tags = [{"tag": color, "score": 0.9}]
        images.append(
            {"image_id": str(image), "uri": str(path), "width": 40, "height": 30, "source": "test", "tags": tags}
        )
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:40])
    rows = [instruction(task, image) for image in range(IMAGES) for task in ("caption", "rec", "vqa", "pope")]
    for name, table in (("tagged", to_table(images, TAGGED)), ("instructions", to_table(rows, INSTRUCTIONS))):
        (root / name / name).mkdir(parents=True)
        pq.write_table(pa.table(table), root / name / name / "part-0.parquet")
    texts = [row["instruction"] for row in rows] + [answer for row in rows for answer in row["answers"]]
    tokenizer, bert = t5_vocabulary(texts, 400), bert_vocabulary(texts, 400)
    # Every token of the model is a word of the tokenizer, and its first answers differ from image to image.
    sizes = {"vocab_size": len(tokenizer), "initializer_factor": 3.0}
    prompt = {"kind": "dynamic", "tags_in_text": False}
    config = LionConfig.preset("tiny", prompt=prompt, text_config=sizes)
    processor = LionProcessor.for_config(config, tokenizer, bert)
    torch.manual_seed(0)
    LionForConditionalGeneration(config).save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    return World(str(root / "model"), str(root / "instructions"), str(root / "tagged"))
