"""Phrasings: each has the placeholders of its task, and training never uses that of evaluation."""

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
def test_prompts_name_the_form_of_the_answer(task: str) -> None:
    assert all("[x1,y1,x2,y2]" in wording for wording in (*TASKS[task].train, TASKS[task].evaluate))
    for other, form in (("pope", "yes or no"), ("statement", "true or false")):
        assert all(form in wording.lower() for wording in (*TASKS[other].train, TASKS[other].evaluate))


def test_the_phrasing_depends_on_the_key_alone_and_uses_all() -> None:
    texts = [instruction("vqa", "train", {"text": "Why?"}, f"0/{number}") for number in range(200)]
    assert texts == [instruction("vqa", "train", {"text": "Why?"}, f"0/{number}") for number in range(200)]
    counts = Counter(texts)
    assert len(counts) == len(TASKS["vqa"].train)
    assert min(counts.values()) > 25


def test_text_is_put_in_as_it_is() -> None:
    text = "What does {choices} or {box} mean?"
    prompt = instruction("vqa_choice", "evaluate", {"text": text, "choices": "a, b"}, "key")
    assert prompt.count(text) == 1
    assert "a, b" in prompt


def test_every_task_of_every_source_has_phrasings() -> None:
    assert {task for source in QUESTION_SOURCES.values() for task in source.tasks} == set(TASKS)
