"""The backbones in the repository: their size, their card, their measurements, and a LION made of them."""

import json
from pathlib import Path

import pytest
import torch

from models.lion import LionForConditionalGeneration, LionProcessor
from pipelines.sample_world.backbones.card import card_text
from pipelines.sample_world.backbones.config import PARTS, PretrainTinyConfig
from pipelines.sample_world.backbones.kept import WEIGHTS, kept_backbones
from pipelines.sample_world.backbones.lion import make_lion
from pipelines.sample_world.backbones.quality import measure_language, measure_tagger, measure_vision, tag_held_out
from pipelines.sample_world.backbones.world import entry

CARD = json.loads((WEIGHTS / "card.json").read_text(encoding="utf-8"))
KEPT = kept_backbones()


def test_the_weights_are_below_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 10_000_000


def test_the_page_is_the_text_of_the_card_and_names_the_origin_of_each_part_first() -> None:
    page = (WEIGHTS / "CARD.md").read_text(encoding="utf-8")
    assert page == card_text(CARD, PretrainTinyConfig())
    origin, _, _ = page.partition("| part | parameters |")
    assert all(f"| {part} | " in origin for part in PARTS)


def test_a_card_without_a_note_names_command_and_commit() -> None:
    plain = {name: value for name, value in CARD.items() if name != "note"}
    assert f"Made by `{CARD['command']}` at commit {CARD['git_commit']}, seed 0" in card_text(
        plain, PretrainTinyConfig()
    )


def test_the_card_has_the_command_the_commit_and_every_part() -> None:
    assert CARD["command"].startswith("python -m jobs.pretrain_tiny")
    assert len(CARD["git_commit"].rstrip("+")) == 40
    assert set(CARD["seconds"]) == set(CARD["parameters"]) == set(CARD["quality"])


def test_the_vits_accuracy_is_that_of_the_card() -> None:
    measured, card = measure_vision(KEPT.vision, scenes=96), CARD["quality"]["vision"]

    assert measured == pytest.approx(card, abs=0.05)


def test_the_t5s_accuracy_is_that_of_the_card() -> None:
    measured, card = measure_language(KEPT.language, per_task=24), CARD["quality"]["language"]

    assert measured["list/perplexity"] == pytest.approx(card["list/perplexity"], rel=0.1)
    for task in ("vqa", "pope", "rec"):
        assert measured[f"list/{task}"] == pytest.approx(card[f"list/{task}"], abs=0.2)


def test_the_taggers_measures_are_those_of_the_card() -> None:
    measured, card = measure_tagger(tag_held_out(KEPT.tagger, scenes=192)), CARD["quality"]["tagger"]

    assert measured["precision"] == pytest.approx(card["precision"], abs=0.06)
    assert measured["recall"] == pytest.approx(card["recall"], abs=0.06)
    assert measured["calibration_error"] == pytest.approx(card["calibration_error"], abs=0.02)


@pytest.mark.parametrize("visual_input", ["qformer", "aggregator", "all"])
def test_a_lion_of_the_backbones_generates_text(visual_input: str, tmp_path: Path) -> None:
    folder = make_lion(KEPT.vision, KEPT.language, KEPT.tag_encoder, str(tmp_path), visual_input=visual_input)

    model = LionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = LionProcessor.from_pretrained(folder)
    batch = processor(images=[entry(0, 0, 0.0).draw()], text=["Is it red?"], tags=[[("red", 0.9)]], levels=["image"])
    assert isinstance(processor.answers(model.generate(**batch, max_new_tokens=3))[0], str)
    assert model.generation_config.repetition_penalty == 1.0


def test_a_folder_without_the_backbones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no vision, language, tagger, tag_encoder; make them with"):
        kept_backbones(tmp_path)
