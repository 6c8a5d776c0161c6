"""Questions and answers are true of their scene and worded as in training."""

import random

import pytest

from pipelines.instructions.templates import TASKS
from pipelines.sample_world.backbones.corpus import (
    DRILLS,
    KINDS,
    Kind,
    Question,
    questions,
    questions_of,
    scene_in_words,
    shares,
    tag_prefix,
)
from pipelines.sample_world.backbones.world import entry, normalized_box
from pipelines.sources.boxes import parse_box

ASKED = [one for index in range(40) for one in questions(entry(0, index, 0.5), random.Random(index))]


def of(task: str) -> list[Question]:
    return [one for one in ASKED if one.task == task]


def test_every_task_is_asked_and_belongs_to_one_kind() -> None:
    asked = {one.task for one in ASKED}

    assert asked == {task for tasks in KINDS.values() for task in tasks}
    assert asked - set(TASKS) == {"scene", "locate", "presence"}


def test_evaluation_s_wording_is_never_used() -> None:
    for one in ASKED:
        if one.task not in TASKS:
            continue
        before, _, after = TASKS[one.task].evaluate.partition("{")
        assert one.prompt != TASKS[one.task].evaluate
        assert not (after and before and one.prompt.startswith(before))


def test_yes_means_there_and_no_means_not() -> None:
    for one in of("pope"):
        named = [name for name in one.entry.scene.names if f"{name} in the" in one.prompt]
        assert bool(named) == (one.answer == "yes")
    answers = [one.answer for one in of("pope")]
    assert answers.count("yes") == answers.count("no")


def test_boxes_asked_for_are_an_object_s_own() -> None:
    for one in of("rec"):
        found = parse_box(one.answer)
        assert found is not None
        boxes = [normalized_box(item, one.entry.scene) for item in one.entry.scene.objects]
        assert any(found.box == pytest.approx(box, abs=6e-4) for box in boxes)


def test_region_answers_mean_the_object_in_the_box() -> None:
    for one in of("reg"):
        found = parse_box(one.prompt)
        assert found is not None
        number = next(n for n, texts in one.entry.expressions if one.answer in texts)
        assert found.box == pytest.approx(normalized_box(one.entry.scene.objects[number], one.entry.scene), abs=6e-4)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_bundle_is_of_one_kind(kind: Kind) -> None:
    entries = iter(entry(0, index, 0.0) for index in range(1000))

    found = questions_of(kind, entries, 12, random.Random(0))

    assert len(found) == 12
    assert {one.task for one in found} <= set(KINDS[kind])


def test_drills_tell_of_every_name_whether_and_where_it_is() -> None:
    for one in of("locate"):
        boxes = {item.name: normalized_box(item, one.entry.scene) for item in one.entry.scene.objects}
        for part in one.answer.split("; "):
            name, told = part.rsplit(" ", 1)
            found = parse_box(told)
            assert (found is None) == (name not in boxes) == (told == "no")
            assert found is None or found.box == pytest.approx(boxes[name], abs=6e-4)
    for one in of("presence"):
        names = one.prompt.removeprefix("Which are there: ").removesuffix("?").split(", ")
        assert one.answer.split() == ["yes" if name in one.entry.scene.names else "no" for name in names]


def test_drills_give_way_to_lion_s_own_questions() -> None:
    often = [sum(shares(progress)[kind] for kind in DRILLS) for progress in (0.0, 0.2, 0.5, 1.0)]

    assert often == sorted(often, reverse=True)
    assert often[0] > 3 * often[-1] > 0
    assert all(sum(shares(progress).values()) == pytest.approx(1) for progress in (0.0, 0.3, 1.0))


def test_a_scene_in_words_names_every_object_with_its_box() -> None:
    scene = entry(0, 1, 0.0).scene

    text = scene_in_words(scene, random.Random(0))

    assert text.startswith(f"{scene.background} background; ")
    assert all(f"{item.size} {item.name} [" in text for item in scene.objects)


def test_the_tags_before_a_question_stand_in_lion_s_prompt() -> None:
    prefixes = [tag_prefix(entry(0, 2, 0.0), random.Random(seed)) for seed in range(20)]

    assert all(prefix.startswith("According to <extra_id_0>, ") for prefix in prefixes)
    assert any("the following tags: [" in prefix for prefix in prefixes)
