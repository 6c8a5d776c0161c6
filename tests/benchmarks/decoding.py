"""CPU time of each part of making a model's pixels from JPEG files, in this process."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from models.lion.processing import LionProcessor
from pipelines.precompute.stages import Decode
from pipelines.sources.images import load_image
from tests.benchmarks.figures import Figure, NotMeasured, Settings, cpu_seconds, in_turns
from tests.benchmarks.material import photographs

TAGGER, LION = 384, 224
PHONE = (4000, 3000)


def bare(path: Path, side: int) -> np.ndarray:
    """Make the same pixels with as few lines as possible."""
    picture = Image.open(BytesIO(path.read_bytes())).convert("RGB")
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def whole_files(paths: Sequence[Path], draft: bool) -> object:
    """Decode like precompute's decode stage, with or without the JPEG decoder's reduction."""
    decode = Decode(TAGGER, 100_000_000, draft, embed_bytes=False)
    return [decode.decode({"uri": str(path), "width": None, "height": None}) for path in paths]


def measure(settings: Settings) -> Iterator[Figure | NotMeasured]:
    """Measure photographs of COCO's size and of a telephone's size."""
    rounds = settings.choose(5, 3)
    small = photographs(settings.work / "small", settings.choose(40, 16))
    large = photographs(settings.work / "large", settings.choose(4, 2), PHONE)

    def pair(ours: Callable[[], object], other: Callable[[], object], count: int) -> dict[str, list[float]]:
        timed = {"ours": partial(cpu_seconds, ours), "other": partial(cpu_seconds, other)}
        turns = in_turns(rounds, timed)
        return {name: [1000 * value / count for value in values] for name, values in turns.items()}

    turns = pair(lambda: whole_files(small, True), lambda: [bare(path, TAGGER) for path in small], len(small))
    yield Figure(
        "stage", f"precompute's decode stage, 640 px to {TAGGER}", "Pillow's open, convert and resize", turns["ours"],
        turns["other"], "ms/image", "CPU time", goal=0.9,
        note="the stage also checks size, orientation, transparency and the annotation's size",
    )  # fmt: skip
    turns = pair(lambda: whole_files(large, True), lambda: whole_files(large, False), len(large))
    yield Figure(
        "draft", f"12 megapixels to {TAGGER}, decoded at the size needed", "decoded whole", turns["ours"],
        turns["other"], "ms/image", "CPU time", goal=2.0,
        note="JPEG decoders reduce by 2, 4 or 8; photographs of 640 px are decoded whole: half of 640 is below 384",
    )  # fmt: skip
    pictures = [load_image(str(path)) for path in small]
    clip = CLIPImageProcessorPil(size={"height": LION, "width": LION}, do_center_crop=False)
    pixels = LionProcessor._pixels

    class Holder:
        image_processor = clip

    turns = pair(
        lambda: pixels(Holder(), pictures),  # type: ignore[arg-type]
        lambda: torch.as_tensor(np.stack(clip(pictures)["pixel_values"])),
        len(pictures),
    )
    yield Figure(
        "pixels", f"LionProcessor's pixels, {LION} px", "transformers' CLIP processor", turns["ours"], turns["other"],
        "ms/image", "CPU time", goal=1.3, note="equal pixels; most of the time is resizing, which both do",
    )  # fmt: skip
