"""The tags that are read: from the table through tag encoder and stages to the trained model."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import BertConfig

from models.lion import LionProcessor
from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor
from models.tags import TagRule, save_thresholds, tags_from_rows
from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.core.steps import read_manifest
from pipelines.core.tag_rules import TABLE_THRESHOLDS, model_rules
from pipelines.inference.answerer import Answerer
from pipelines.inference.predictor import LocalInference, Predictor
from pipelines.registry import ModelReference
from pipelines.training.config import LoopConfig, PromptSettings, TrainStageConfig, TrainTagEncoderConfig
from pipelines.training.reading import differences, letters_of_tags, stage_rule
from pipelines.training.runs import train_stage, train_tag_encoder
from pipelines.training.stage import StageTask
from tests.pipelines.training.conftest import World

LOOP = LoopConfig(steps=1, batch_size=4, log_every=1)
LOCAL = LaunchConfig("local", cpus_per_worker=1)
# The world's tags: a color (0.95), a shape (0.7), cloud (0.1).
LIST = {"circle": 0.8, "square": 0.6, "cloud": 0.05, "red": 0.96, "green": 0.9, "blue": 0.9, "black": 0.9}
THIRTY = [(f"red circle number {number}", 0.95 - 0.01 * number) for number in range(30)]
DYNAMIC = PromptSettings(kind="dynamic")


@pytest.fixture(scope="module")
def listed(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The world's table of a tagger with thresholds by tag."""
    folder = tmp_path_factory.mktemp("listed") / "tagged"
    shutil.copytree(world.tagged, folder)
    save_thresholds(folder, LIST, TABLE_THRESHOLDS)
    return str(folder)


@pytest.fixture(scope="module")
def short(tag_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tag encoder of few positions that was trained on few tags: 5 above 0.7, within 16 tokens."""
    folder = str(tmp_path_factory.mktemp("short"))
    own = TagEncoderProcessor.from_pretrained(tag_encoder)
    bert = BertConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    TagEncoder(TagEncoderConfig(bert=bert)).save_pretrained(folder)
    TagEncoderProcessor(own.tokenizer, top_k=5, threshold=0.7, max_length=16).save_pretrained(folder)
    return folder


def stage(
    world: World, tagged: str, lion: str, out: Path, encoder: str | None = None, **changes: Any
) -> TrainStageConfig:
    config = TrainStageConfig(
        world.instructions, tagged, lion, tag_encoder=encoder, loop=LOOP, launch=LOCAL, out=str(out)
    )
    return dataclasses.replace(config, **changes)


def test_an_encoders_own_limits_hold_inside_lion_and_wherever_it_is_asked(
    world: World, lion: str, short: str, tmp_path: Path
) -> None:
    result = train_stage(stage(world, world.tagged, lion, tmp_path, short, prompt=DYNAMIC))
    own = TagEncoderProcessor.from_pretrained(short)([THIRTY])
    model = str(result.summary["model"])
    predictor = Predictor(ModelReference(model), None, LocalInference())
    assert isinstance(predictor.answerer, Answerer)
    for reader in (LionProcessor.from_pretrained(model), predictor.answerer.processor):
        batch = reader(text=["what?"], tags=[THIRTY])
        assert torch.equal(batch["tag_input_ids"], own.input_ids)
        assert torch.equal(batch["tag_token_weights"], own.token_weights)
        assert batch["tag_input_ids"].shape[1] <= 16
    manifest = read_manifest(result.path)["tags_read"]
    assert manifest["vector"] == {"top_k": 5, "threshold": 0.7, "tag_order": "confidence"}
    assert manifest["text"] == {"top_k": 40, "threshold": 0.5, "tag_order": "confidence"}
    # A stage without tag_encoder reads tags by the rule that its parent stores.
    further = StageTask(stage(world, world.tagged, model, tmp_path, prompt=DYNAMIC), "", "", model, None, ())
    assert torch.equal(further.processor()(text=["what?"], tags=[THIRTY])["tag_input_ids"], own.input_ids)


def test_an_encoder_of_few_positions_computes_whatever_its_processor_allows(
    world: World, lion: str, short: str, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(short, folder)
    own = TagEncoderProcessor.from_pretrained(folder)
    own.top_k, own.max_length = 40, 512
    own.save_pretrained(folder)
    task = StageTask(stage(world, "", lion, tmp_path, prompt=DYNAMIC), "", "", lion, str(folder), ())
    batch = task.processor()(
        images=[Image.new("RGB", (64, 64))], text=["what?"], tags=[THIRTY], levels=["image"], answers=["a"]
    )
    assert 16 < batch["tag_input_ids"].shape[1] <= 32
    assert torch.isfinite(task.build()(**batch).loss)


def test_a_stage_that_says_otherwise_than_its_encoder_warns_with_both_values(
    world: World, lion: str, short: str
) -> None:
    settings = stage(world, world.tagged, lion, Path("runs"), short, prompt=DYNAMIC, top_k=40, threshold=0.5)
    rules = StageTask(settings, "", world.tagged, lion, short, ()).rules()
    top_k, threshold = differences(rules, world.tagged, settings)
    assert "top_k is 40, but the tag encoder was trained with 5" in top_k
    assert "threshold is 0.5, but the tag encoder was trained with 0.7" in threshold
    silent = dataclasses.replace(settings, top_k=None, threshold=0.7)
    assert not list(differences(StageTask(silent, "", world.tagged, lion, short, ()).rules(), world.tagged, silent))


def test_thresholds_go_from_the_table_into_the_encoder_the_stage_and_its_model(
    world: World, listed: str, lion: str, tag_encoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lion.training"):
        encoder = train_tag_encoder(
            TrainTagEncoderConfig(listed, tag_encoder, loop=LOOP, launch=LOCAL, out=str(tmp_path))
        )
        trained = train_stage(stage(world, listed, lion, tmp_path, f"{encoder.path}/model", prompt=DYNAMIC))
    assert caplog.text.count("each above its own threshold") == 2
    assert "was trained with" not in caplog.text
    for path, entry in ((encoder.path, ()), (trained.path, ("text",)), (trained.path, ("vector",))):
        described = read_manifest(path)["tags_read"]
        for name in entry:
            described = described[name]
        assert (described["threshold"], described["thresholds"]["tags"]) == ("per_tag", len(LIST))
    rules = model_rules(str(trained.summary["model"]))
    assert rules.text == rules.vector == TagRule(40, "per_tag", "confidence", LIST)
    tags = [("red", 0.95), ("square", 0.7), ("circle", 0.7), ("cloud", 0.1), ("own", 0.55)]
    processor = LionProcessor.from_pretrained(str(trained.summary["model"]))
    text = processor.tokenizer.decode(processor(text=["what?"], tags=[tags])["input_ids"][0])
    assert "[square, own, cloud]" in text
    other = dict(LIST, red=0.5)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save_thresholds(elsewhere, other, TABLE_THRESHOLDS)
    (sentence,) = differences(rules, str(elsewhere), stage(world, str(elsewhere), lion, tmp_path))
    assert "with other thresholds by tag" in sentence


def test_the_released_order_is_the_lists(world: World, listed: str, lion: str, tmp_path: Path) -> None:
    settings = stage(world, listed, lion, tmp_path, tag_order="list", threshold=0.05)
    processor = StageTask(settings, "", listed, lion, None, ()).processor()
    batch = processor(text=["what?"], tags=[[("red", 0.95), ("square", 0.7), ("cloud", 0.1)]])
    assert "[square, cloud, red]" in processor.tokenizer.decode(batch["input_ids"][0])


def test_what_a_table_lacks_is_refused(world: World, listed: str, lion: str, tmp_path: Path) -> None:
    for changes, complaint in (({"threshold": "per_tag"}, "no thresholds"), ({"tag_order": "list"}, "no list")):
        settings = stage(world, world.tagged, lion, tmp_path, **changes)
        with pytest.raises(UserError, match=complaint):
            stage_rule(world.tagged, settings)
        assert stage_rule(listed, settings).thresholds == LIST
    with pytest.raises(UserError, match="threshold is 65"):
        stage(world, listed, lion, tmp_path, threshold=65)
    with pytest.raises(UserError, match="top_k is 0"):
        TrainTagEncoderConfig(listed, top_k=0)


def test_lengths_count_the_tags_that_are_read(world: World) -> None:
    """Count letters with the rule, image by image; rows of equal length share micro-batches."""
    tags = pq.read_table(world.tagged)["tags"].combine_chunks()
    for rule in (TagRule(), TagRule(threshold="per_tag", thresholds={"red": 0.96, "cloud": 0.05})):
        expected = [sum(len(tag) + 2 for tag, _ in rule.select(tags_from_rows(row))) for row in tags.to_pylist()]
        assert letters_of_tags(tags, rule).tolist() == expected


def test_a_models_folder_from_before_reads_as_it_did(lion: str, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(lion, folder)
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    for name in ("tag_order", "tag_encoder"):
        settings.pop(name)
    path.write_text(json.dumps({**settings, "threshold": 0.6, "prompt": {**settings["prompt"], "kind": "dynamic"}}))
    rules = model_rules(str(folder), thresholds=LIST)
    assert rules.text == rules.vector == TagRule(40, 0.6)
    processor = LionProcessor.from_pretrained(folder)
    assert (processor.rule, processor.tag_reader.rule) == (rules.text, rules.vector)
