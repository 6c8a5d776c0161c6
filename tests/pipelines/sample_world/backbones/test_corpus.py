"""The text corpus: answers are true of their scene, and questions use the phrasings for training."""

import random

import pytest

from pipelines.instructions.templates import TASKS
from pipelines.sample_world.backbones.corpus import (
    DRILLS,
    KINDS,
    CorpusQuestion,
    Kind,
    questions,
    questions_of,
    scene_in_words,
    shares,
    tag_prefix,
)
from pipelines.sample_world.backbones.world import entry, normalized_box
from pipelines.sources.boxes import parse_box

QUESTIONS = [question for index in range(40) for question in questions(entry(0, index, 0.5), random.Random(index))]


def questions_about(task: str) -> list[CorpusQuestion]:
    return [question for question in QUESTIONS if question.task == task]


def test_every_task_occurs_and_belongs_to_one_kind() -> None:
    tasks = {question.task for question in QUESTIONS}

    assert tasks == {task for kind_tasks in KINDS.values() for task in kind_tasks}
    assert tasks - set(TASKS) == {"scene", "locate", "presence"}


def test_the_phrasing_of_evaluation_is_never_used() -> None:
    for question in QUESTIONS:
        if question.task not in TASKS:
            continue
        before, _, after = TASKS[question.task].evaluate.partition("{")
        assert question.prompt != TASKS[question.task].evaluate
        assert not (after and before and question.prompt.startswith(before))


def test_yes_means_present_and_no_means_absent() -> None:
    for question in questions_about("pope"):
        named = [name for name in question.entry.scene.names if f"{name} in the" in question.prompt]
        assert bool(named) == (question.answer == "yes")
    answers = [question.answer for question in questions_about("pope")]
    assert answers.count("yes") == answers.count("no")


def test_boxes_in_answers_are_those_of_an_object() -> None:
    for question in questions_about("rec"):
        parsed = parse_box(question.answer)
        assert parsed is not None
        boxes = [normalized_box(item, question.entry.scene) for item in question.entry.scene.objects]
        assert any(parsed.box == pytest.approx(box, abs=6e-4) for box in boxes)


def test_answers_about_a_region_refer_to_the_object_in_the_box() -> None:
    for question in questions_about("reg"):
        parsed = parse_box(question.prompt)
        assert parsed is not None
        number = next(n for n, texts in question.entry.expressions if question.answer in texts)
        assert parsed.box == pytest.approx(
            normalized_box(question.entry.scene.objects[number], question.entry.scene), abs=6e-4
        )


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_bundle_has_questions_of_one_kind(kind: Kind) -> None:
    entries = iter(entry(0, index, 0.0) for index in range(1000))

    bundle = questions_of(kind, entries, 12, random.Random(0))

    assert len(bundle) == 12
    assert {question.task for question in bundle} <= set(KINDS[kind])


def test_drills_have_presence_and_box_of_every_name() -> None:
    for question in questions_about("locate"):
        boxes = {item.name: normalized_box(item, question.entry.scene) for item in question.entry.scene.objects}
        for part in question.answer.split("; "):
            name, text = part.rsplit(" ", 1)
            parsed = parse_box(text)
            assert (parsed is None) == (name not in boxes) == (text == "no")
            assert parsed is None or parsed.box == pytest.approx(boxes[name], abs=6e-4)
    for question in questions_about("presence"):
        names = question.prompt.removeprefix("Which are there: ").removesuffix("?").split(", ")
        assert question.answer.split() == ["yes" if name in question.entry.scene.names else "no" for name in names]


def test_drills_become_rare_in_favor_of_lions_tasks() -> None:
    drill_shares = [sum(shares(progress)[kind] for kind in DRILLS) for progress in (0.0, 0.2, 0.5, 1.0)]

    assert drill_shares == sorted(drill_shares, reverse=True)
    assert drill_shares[0] > 3 * drill_shares[-1] > 0
    assert all(sum(shares(progress).values()) == pytest.approx(1) for progress in (0.0, 0.3, 1.0))


def test_a_scene_in_words_has_every_object_with_its_box() -> None:
    scene = entry(0, 1, 0.0).scene

    text = scene_in_words(scene, random.Random(0))

    assert text.startswith(f"{scene.background} background; ")
    assert all(f"{item.size} {item.name} [" in text for item in scene.objects)


def test_the_tags_before_a_question_are_in_lions_prompt() -> None:
    prefixes = [tag_prefix(entry(0, 2, 0.0), random.Random(seed)) for seed in range(20)]

    assert all(prefix.startswith("According to <extra_id_0>, ") for prefix in prefixes)
    assert any("the following tags: [" in prefix for prefix in prefixes)
