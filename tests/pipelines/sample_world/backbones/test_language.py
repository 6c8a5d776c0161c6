"""Packed phrases, the tokenizer, bundles of questions, and saving and loading the small T5."""

import random
from pathlib import Path

import pytest
import torch

from pipelines.sample_world.backbones.config import LanguageSettings
from pipelines.sample_world.backbones.corpus import questions
from pipelines.sample_world.backbones.language import LanguageTask, SceneReader, SceneTexts, load_reader, tokenizer
from pipelines.sample_world.backbones.phrases import grid_phrases, list_phrases
from pipelines.sample_world.backbones.world import entry
from pipelines.training.order import Draw

SETTINGS = LanguageSettings(width=16, feed_forward=16, heads=2, bundle=8, scenes=20)
SCENE = entry(0, 0, 0.0).scene


@pytest.fixture(scope="module")
def reader() -> SceneReader:
    torch.manual_seed(0)
    return LanguageTask(SETTINGS, 0).build().eval()


def test_a_list_has_each_object_once_with_the_word_center() -> None:
    phrases = list_phrases(SCENE, 8, random.Random(0))

    centers = [phrase for phrase in phrases if "center" in phrase.words]

    assert len(phrases) == 8
    assert sorted(p.words[:3] for p in centers) == sorted((o.size, o.color, o.shape) for o in SCENE.objects)


def test_a_grid_has_the_object_of_each_cell() -> None:
    phrases = grid_phrases(SCENE, 6, random.Random(0), noisy=False)

    for item in SCENE.objects:
        x, y = item.center
        cell = phrases[int(6 * y / SCENE.height) * 6 + int(6 * x / SCENE.width)]
        assert cell.words == (item.size, item.color, item.shape, "center")
    assert {phrase.words[0] for phrase in phrases} >= {"background"}


@pytest.mark.parametrize(
    "text", ["Answer: [0.440,0.060,0.650,0.367]", "Answer: [0.000,0.060,1.000,0.367]", "a red star"]
)
def test_the_tokenizer_restores_texts_and_splits_digits(text: str) -> None:
    tokens = tokenizer(SETTINGS, 0)

    pieces = tokens.tokenize(text)

    assert tokens.decode(tokens(text)["input_ids"], skip_special_tokens=True) == text
    assert all(sum(letter.isdigit() for letter in piece.replace("0.", "")) <= 1 for piece in pieces)


def test_a_phrases_box_changes_the_loss_and_padding_does_not(reader: SceneReader) -> None:
    texts = SceneTexts(SETTINGS, 0, tokenizer(SETTINGS, 0))
    bundle = questions(entry(0, 0, 0.0), random.Random(0))[:1]
    batch = texts.tensors(bundle, "list", random.Random(0), noisy=False)
    other = {**batch, "phrase_boxes": batch["phrase_boxes"] * 0.5}
    longer = {**batch, **{n: torch.nn.functional.pad(batch[n], (0, 3)) for n in ("input_ids", "attention_mask")}}

    with torch.no_grad():
        losses = [reader(**tensors)[0] for tensors in (batch, other, longer)]

    assert not torch.allclose(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_a_bundle_depends_only_on_its_number() -> None:
    texts = SceneTexts(SETTINGS, 0, tokenizer(SETTINGS, 0))

    first, again, other = (texts.load(Draw(0, number, 0)) for number in (3, 3, 4))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["input_ids"].shape != other["input_ids"].shape or not torch.equal(
        first["input_ids"], other["input_ids"]
    )


def test_a_saved_reader_gives_the_same_losses(reader: SceneReader, tmp_path: Path) -> None:
    LanguageTask(SETTINGS, 0).save(reader, str(tmp_path))
    texts = SceneTexts(SETTINGS, 0, tokenizer(SETTINGS, 0))
    batch = texts.load(Draw(1, 0, 0))

    loaded, tokens = load_reader(str(tmp_path))

    assert len(tokens) == reader.t5.config.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch)[0], reader(**batch)[0])
    assert loaded.t5.lm_head.weight is not loaded.t5.shared.weight
