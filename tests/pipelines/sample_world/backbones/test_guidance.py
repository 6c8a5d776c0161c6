"""The guidance of the small T5: targets of its attention head, and weights of a box's digits."""

import random

import pytest
import torch

from pipelines.sample_world.backbones.config import LanguageSettings
from pipelines.sample_world.backbones.corpus import CorpusQuestion, mentioned_objects, questions
from pipelines.sample_world.backbones.guidance import digit_weights, guidance_loss, phrase_targets
from pipelines.sample_world.backbones.language import SceneTexts, tokenizer
from pipelines.sample_world.backbones.phrases import grid_phrases
from pipelines.sample_world.backbones.world import entry, normalized_box
from pipelines.sources.boxes import parse_box

SETTINGS = LanguageSettings(width=16, feed_forward=16, heads=2, bundle=8, scenes=20)
QUESTIONS = [question for index in range(20) for question in questions(entry(0, index, 0.5), random.Random(index))]


def questions_about(*tasks: str) -> list[CorpusQuestion]:
    return [question for question in QUESTIONS if question.task in tasks]


def test_a_span_has_the_object_whose_box_is_in_the_answer() -> None:
    checked = 0
    for question in questions_about("rec", "locate", "scene"):
        for span in question.spans:
            (number,) = span.objects
            scene, parsed = question.entry.scene, parse_box(question.answer[span.start : span.end])
            assert parsed is not None
            assert parsed.box == pytest.approx(normalized_box(scene.objects[number], scene), abs=6e-4)
            checked += 1
    assert checked > 100


def test_every_question_about_one_object_has_a_span() -> None:
    assert all(len(question.spans) == 1 for question in questions_about("rec", "reg"))
    assert all(question.spans for question in questions_about("pope") if question.answer == "yes")
    assert not any(question.spans for question in questions_about("caption", "presence"))


def test_a_text_mentions_objects_by_name_or_else_by_color_or_shape() -> None:
    scene = entry(0, 0, 0.0).scene
    item = scene.objects[0]

    named = mentioned_objects(scene, f"Is there a {item.name} in the picture?")
    colored = mentioned_objects(scene, f"How many {item.color} objects are there?")

    assert named == {n for n, other in enumerate(scene.objects) if other.name == item.name}
    assert colored == {n for n, other in enumerate(scene.objects) if other.color == item.color}
    assert mentioned_objects(scene, "How many shapes can be seen in all?") == set()


def test_the_targets_of_an_answers_token_are_the_cells_of_its_object() -> None:
    tokens = tokenizer(SETTINGS, 0)
    question = questions_about("locate")[0]
    cells = grid_phrases(question.entry.scene, 6, random.Random(0), noisy=False)
    spans = tokens([question.answer], return_offsets_mapping=True)["offset_mapping"]

    flags = phrase_targets([question], [cells], spans)[0]

    assert flags.shape == (len(spans[0]), 36)
    for (start, end), row in zip(spans[0], flags, strict=True):
        expected = [span.objects for span in question.spans if start < end and span.start <= start < span.end]
        targets = {cells[cell].number for cell in row.nonzero().flatten().tolist()}
        assert targets == (set(expected[0]) if expected else set())


def test_the_guidance_loss_is_zero_on_target_and_large_off_target() -> None:
    targets = torch.tensor([[[True, False], [False, False]]])
    on_target, off_target = torch.tensor([[[1.0, 0, 0], [0, 0, 1]]]), torch.tensor([[[0.01, 0.99, 0], [1.0, 0, 0]]])

    assert guidance_loss(on_target, targets) == pytest.approx(0)
    assert guidance_loss(off_target, targets) == pytest.approx(4.605, abs=1e-3)
    assert guidance_loss(on_target, torch.zeros_like(targets)) == 0


def test_the_third_decimal_of_a_coordinate_has_a_small_weight_and_padding_none() -> None:
    tokens = tokenizer(SETTINGS, 0)
    texts = SceneTexts(SETTINGS, 0, tokens)
    bundle = [questions_about("rec")[0], questions_about("vqa")[0]]

    batch = texts.tensors(bundle, "list", random.Random(0), noisy=False)

    pieces = tokens.convert_ids_to_tokens(batch["labels"][0].tolist())
    light = [number for number, weight in enumerate(batch["weights"][0].tolist()) if 0 < weight < 1]
    assert [pieces[number - 3] for number in light] == ["[0.", ",0.", ",0.", ",0."]
    assert all(pieces[number].isdigit() for number in light)
    assert ((batch["labels"] == -100) == (batch["weights"] == 0)).all()
    assert digit_weights(torch.tensor([[5, 6]]), [7]).tolist() == [[1, 1]]
