"""The guided head is told where an answer is found, and a box's last digits count little."""

import random

import pytest
import torch

from pipelines.sample_world.backbones.config import LanguageSettings
from pipelines.sample_world.backbones.corpus import Question, questions, spoken_of
from pipelines.sample_world.backbones.guidance import digit_weights, sought, unseen
from pipelines.sample_world.backbones.language import SceneTexts, tokenizer
from pipelines.sample_world.backbones.phrases import gridded
from pipelines.sample_world.backbones.world import entry, normalized_box
from pipelines.sources.boxes import parse_box

SETTINGS = LanguageSettings(width=16, feed_forward=16, heads=2, bundle=8, scenes=20)
ASKED = [one for index in range(20) for one in questions(entry(0, index, 0.5), random.Random(index))]


def of(*tasks: str) -> list[Question]:
    return [one for one in ASKED if one.task in tasks]


def test_the_objects_to_look_at_are_those_whose_boxes_the_answer_gives() -> None:
    seen = 0
    for one in of("rec", "locate", "scene"):
        for look in one.looks:
            (number,) = look.objects
            scene, found = one.entry.scene, parse_box(one.answer[look.start : look.end])
            assert found is not None
            assert found.box == pytest.approx(normalized_box(scene.objects[number], scene), abs=6e-4)
            seen += 1
    assert seen > 100


def test_every_question_about_one_object_knows_where_to_look() -> None:
    assert all(len(one.looks) == 1 for one in of("rec", "reg"))
    assert all(one.looks for one in of("pope") if one.answer == "yes")
    assert not any(one.looks for one in of("caption", "presence"))


def test_a_text_speaks_of_the_objects_it_names_or_else_of_those_that_are_like_it() -> None:
    scene = entry(0, 0, 0.0).scene
    item = scene.objects[0]

    named = spoken_of(scene, f"Is there a {item.name} in the picture?")
    colored = spoken_of(scene, f"How many {item.color} objects are there?")

    assert named == {n for n, other in enumerate(scene.objects) if other.name == item.name}
    assert colored == {n for n, other in enumerate(scene.objects) if other.color == item.color}
    assert spoken_of(scene, "How many shapes can be seen in all?") == set()


def test_each_token_of_an_answer_is_sought_where_the_scene_shows_its_object() -> None:
    tokens = tokenizer(SETTINGS, 0)
    (one,) = of("locate")[:1]
    cells = gridded(one.entry.scene, 6, random.Random(0), noisy=False)
    spans = tokens([one.answer], return_offsets_mapping=True)["offset_mapping"]

    flags = sought([one], [cells], spans)[0]

    assert flags.shape == (len(spans[0]), 36)
    for (start, end), row in zip(spans[0], flags, strict=True):
        wanted = [look.objects for look in one.looks if start < end and look.start <= start < look.end]
        shown = {cells[cell].number for cell in row.nonzero().flatten().tolist()}
        assert shown == (set(wanted[0]) if wanted else set())


def test_looking_at_what_is_sought_costs_nothing_and_elsewhere_much() -> None:
    wanted = torch.tensor([[[True, False], [False, False]]])
    there, elsewhere = torch.tensor([[[1.0, 0, 0], [0, 0, 1]]]), torch.tensor([[[0.01, 0.99, 0], [1.0, 0, 0]]])

    assert unseen(there, wanted) == pytest.approx(0)
    assert unseen(elsewhere, wanted) == pytest.approx(4.605, abs=1e-3)
    assert unseen(there, torch.zeros_like(wanted)) == 0


def test_the_third_digit_of_a_coordinate_counts_little_and_padding_not_at_all() -> None:
    tokens = tokenizer(SETTINGS, 0)
    texts = SceneTexts(SETTINGS, 0, tokens)
    asked = [of("rec")[0], of("vqa")[0]]

    batch = texts.tensors(asked, "list", random.Random(0), noisy=False)

    pieces = tokens.convert_ids_to_tokens(batch["labels"][0].tolist())
    light = [number for number, weight in enumerate(batch["weights"][0].tolist()) if 0 < weight < 1]
    assert [pieces[number - 3] for number in light] == ["[0.", ",0.", ",0.", ",0."]
    assert all(pieces[number].isdigit() for number in light)
    assert ((batch["labels"] == -100) == (batch["weights"] == 0)).all()
    assert digit_weights(torch.tensor([[5, 6]]), [7]).tolist() == [[1, 1]]
