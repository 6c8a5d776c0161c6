"""Inputs of the benchmarks: images, a tagger, a LION with its vocabularies and tables."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.benchmarks.runner import ROOT

_COCO = ROOT.parent / "shared/data/coco/images"
CAPTIONS = ("a dog on a sofa", "a brown dog lies there", "the dog sleeps", "one dog and a cushion", "a sofa with a dog")


def photographs(work: Path, count: int, size: tuple[int, int] | None = None) -> list[Path]:
    """Write JPEG files: copies of COCO's photographs if they are available, else noise.

    Args:
        work: folder for the files.
        count: number of files.
        size: side to resize to; None keeps COCO's 640 pixels.
    """
    work.mkdir(parents=True, exist_ok=True)
    photos = sorted(_COCO.glob("*.jpg")) if _COCO.is_dir() else []
    paths = [work / f"picture-{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if photos and size is None:
            shutil.copyfile(photos[number % len(photos)], path)
            continue
        picture = Image.open(photos[number % len(photos)]).convert("RGB") if photos else _noise(number)
        picture.resize(size or (640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def _noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8))


def save_ram(folder: Path, side: int, width: int, depths: tuple[int, ...], tags: int) -> Path:
    """Save a RAM with random weights, larger than the tiny and smaller than the released one."""
    import torch

    from models.ram import RamConfig, RamForImageTagging, RamProcessor

    torch.manual_seed(0)
    swin = {"image_size": side, "embed_dim": width, "depths": depths, "num_heads": tuple(2 ** (i + 1) for i in
            range(len(depths))), "window_size": 6}  # fmt: skip
    model = RamForImageTagging(RamConfig.preset("tiny", swin=swin, n_tags=tags))
    model.save_pretrained(folder)
    RamProcessor([f"tag {n}" for n in range(tags)], image_size=side).save_pretrained(folder)
    return folder


@dataclasses.dataclass(frozen=True)
class Tables:
    """Folders with the inputs of a training stage."""

    tagged: str
    instructions: str
    lion: str


# Question, answers and level of each task, with the lengths of the real sets.
TASKS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "vqa": ("image", "What color is the thing on the left?", ("brown", "dark brown")),
    "caption": ("image", "Describe the image in a sentence.", CAPTIONS),
    "rec": ("region", "Where is the brown dog that lies on the sofa behind the cushion?",
            ("Answer: [0.125,0.250,0.875,0.750]",)),
    "reg": ("region", "What is at [0.125,0.250,0.875,0.750]?", ("the brown dog that sleeps on the sofa",)),
}  # fmt: skip


def save_tables(work: Path, pictures: list[Path], samples: int, preset: str = "tiny", **fields: Any) -> Tables:
    """Write `tagged` and `instructions` tables of these images, and an untrained LION with their vocabulary.

    The tasks alternate. An image has 0 to 24 tags of usual lengths, so that prompts differ in length.
    """
    import torch

    from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
    from models.lion.vocabulary import bert_vocabulary, t5_vocabulary
    from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table

    words = (
        "dog",
        "sofa",
        "cushion",
        "living room",
        "brown",
        "lie",
        "pillow",
        "blanket",
        "pet",
        "couch",
        "relax",
        "leg",
    )
    rng = np.random.default_rng(0)
    images = []
    for path in pictures:
        count = int(rng.integers(0, 25))
        tags = [{"tag": f"{words[i % 12]} {words[(i * 7 + 3) % 12]}", "score": 0.99 - 0.01 * i} for i in range(count)]
        images.append({"image_id": path.name, "uri": str(path), "width": 640, "height": 480, "source": "benchmark",
                       "tags": tags, "captions": list(CAPTIONS), "caption": CAPTIONS[0],
                       "caption_index": 0})  # fmt: skip
    rows = [
        {"sample_id": f"{task}:{number}", "image_id": pictures[number % len(pictures)].name, "task": task,
         "level": level, "instruction": question, "answers": list(answers)}
        for number, (task, (level, question, answers)) in zip(range(samples), itertools.cycle(TASKS.items()),
                                                              strict=False)
    ]  # fmt: skip
    for name, content, schema in (("tagged", images, TAGGED), ("instructions", rows, INSTRUCTIONS)):
        (work / name).mkdir(parents=True)
        pq.write_table(to_table(content, schema), work / name / "part-00000000.parquet")
    torch.manual_seed(0)
    texts = [*words, *(text for _, question, answers in TASKS.values() for text in (question, *answers)),
             "According to, you are allowed to use or partially use the following tags: []. 0123456789"]  # fmt: skip
    config = LionConfig.preset(
        preset, **{"text_config": {"vocab_size": 512}, "qformer_config": {"vocab_size": 512}} | fields
    )
    LionForConditionalGeneration(config).save_pretrained(work / "lion")
    processor = LionProcessor.for_config(config, t5_vocabulary(texts, 512), bert_vocabulary(texts, 512))
    processor.save_pretrained(work / "lion")
    return Tables(str(work / "tagged"), str(work / "instructions"), str(work / "lion"))
