"""Fixtures of a small comparison: a few images of one color each, a LION and a tag encoder with random weights."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.comparison.config import ChampionRule, CompareConfig, NoiseCurve, StageSpec
from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table
from pipelines.evaluation.config import InferenceConfig
from tests.pipelines.evaluation.conftest import COLORS, instruction

TRAIN, TEST = range(8), range(8, 14)
TASKS = ("caption", "vqa", "rec", "pope")


@dataclasses.dataclass(frozen=True)
class World:
    """The input folders of a comparison."""

    data: str
    tagged: str
    test_data: str
    test_tagged: str
    lion: str
    tag_encoder: str


def write_tables(root: Path, images: range) -> tuple[str, str]:
    """Write the tables of the images with these numbers; return the folders `instructions` and `tagged`."""
    rows = [instruction(task, number) for number in images for task in TASKS]
    tagged = []
    for number in images:
        color = COLORS[number % len(COLORS)]
        path = root / f"{number}.png"
        Image.new("RGB", (40, 30), color).save(path)
        tags = [{"tag": color, "score": 0.9}, {"tag": COLORS[(number + 1) % 4], "score": 0.6}]
        tagged.append(
            {"image_id": str(number), "uri": str(path), "width": 40, "height": 30, "source": "test", "tags": tags}
        )
    (root / "instructions").mkdir()
    (root / "tagged").mkdir()
    pq.write_table(to_table(rows, INSTRUCTIONS), root / "instructions" / "part-0.parquet")
    pq.write_table(to_table(tagged, TAGGED), root / "tagged" / "part-0.parquet")
    return str(root / "instructions"), str(root / "tagged")


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Eight images for training, six for evaluation, and untrained models."""
    import torch

    from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
    from models.lion.vocabulary import bert_vocabulary, t5_vocabulary
    from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor

    root = tmp_path_factory.mktemp("comparison")
    for part in ("train", "test"):
        (root / part).mkdir()
    train, test = write_tables(root / "train", TRAIN), write_tables(root / "test", TEST)
    rows = [instruction(task, number) for number in range(8) for task in TASKS]
    texts = [text for row in rows for text in (row["instruction"], *row["answers"])] + ["0.1 0.2 0.3 0.4 0.5 no"]
    tokenizer, bert = t5_vocabulary(texts, 400), bert_vocabulary(texts, 400)
    torch.manual_seed(0)
    encoder = TagEncoderConfig.preset("tiny")
    encoder.bert.vocab_size = len(bert)
    TagEncoder(encoder).save_pretrained(root / "encoder")
    TagEncoderProcessor(bert).save_pretrained(root / "encoder")
    config = LionConfig.preset("tiny", text_config={"vocab_size": len(tokenizer)}, qformer_config={"vocab_size": 400})
    LionForConditionalGeneration(config).save_pretrained(root / "lion")
    LionProcessor.for_config(config, tokenizer, bert).save_pretrained(root / "lion")
    return World(*train, *test, str(root / "lion"), str(root / "encoder"))


def make_config(world: World, out: Path, **changes: Any) -> CompareConfig:
    """Return a comparison of two arms, two seeds, one strength of noise and three training steps, with changes."""
    train = {
        "stage": 1,
        "parents": world.lion,
        "loop": {"steps": 3, "batch_size": 4, "log_every": 1},
        "optimizer": {"learning_rate": 1.0e-3},
        "launch": {"launcher": "local", "cpus_per_worker": 1},
        "validation_fraction": 0.2,
    }
    config = CompareConfig(
        data=world.data,
        tagged=world.tagged,
        test_data=world.test_data,
        test_tagged=world.test_tagged,
        tag_encoder=world.tag_encoder,
        stages={"stage1": StageSpec(train)},
        arms={"static": {"prompt": {"kind": "static"}}, "dynamic": {"prompt": {"kind": "dynamic"}}},
        seeds=[0, 1],
        noise=NoiseCurve(levels=[1.0]),
        resamples=100,
        examples=2,
        champion=ChampionRule(metric="vqa.soft_accuracy", allow_one_seed=True),
        inference=InferenceConfig(beams=1, launcher="local", batch_size=8, cpus=1),
        out=str(out),
    )
    return dataclasses.replace(config, **changes)
