"""Phrasings: each asks what its task needs, and evaluation's are never those of training."""

import re
from collections import Counter

import pytest

from pipelines.core.tables import LEVELS
from pipelines.instructions.templates import TASKS, instruction
from pipelines.sources import QUESTION_SOURCES


@pytest.mark.parametrize("task", list(TASKS))
def test_every_phrasing_has_its_placeholders_and_no_other(task: str) -> None:
    phrasings = TASKS[task]
    for wording in (*phrasings.train, phrasings.evaluate):
        assert Counter(re.findall(r"\{\w+\}", wording)) == Counter(phrasings.placeholders)
    assert phrasings.evaluate not in phrasings.train
    assert len(set(phrasings.train)) == len(phrasings.train) >= 3
    assert phrasings.level in LEVELS


@pytest.mark.parametrize("task", ["rec", "grounded_caption"])
def test_prompts_say_which_form_the_answer_takes(task: str) -> None:
    assert all("[x1,y1,x2,y2]" in wording for wording in (*TASKS[task].train, TASKS[task].evaluate))
    for other, form in (("pope", "yes or no"), ("statement", "true or false")):
        assert all(form in wording.lower() for wording in (*TASKS[other].train, TASKS[other].evaluate))


def test_the_phrasing_depends_on_the_key_alone_and_uses_all() -> None:
    asked = [instruction("vqa", "train", {"text": "Why?"}, f"0/{number}") for number in range(200)]
    assert asked == [instruction("vqa", "train", {"text": "Why?"}, f"0/{number}") for number in range(200)]
    counts = Counter(asked)
    assert len(counts) == len(TASKS["vqa"].train)
    assert min(counts.values()) > 25


def test_text_is_put_in_as_it_is() -> None:
    text = "What does {choices} or {box} mean?"
    asked = instruction("vqa_choice", "evaluate", {"text": text, "choices": "a, b"}, "key")
    assert asked.count(text) == 1
    assert "a, b" in asked


def test_every_task_of_every_source_has_phrasings() -> None:
    assert {task for source in QUESTION_SOURCES.values() for task in source.tasks} == set(TASKS)
