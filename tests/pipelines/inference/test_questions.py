"""Questions in the evaluation's wording and in the user's, and questions that are refused."""

from typing import get_args

import pytest

from pipelines.core.errors import UserError
from pipelines.inference.questions import Task, build_question, longest_answer
from pipelines.instructions.templates import TASKS


def test_the_tasks_of_the_command_line_are_those_of_the_templates() -> None:
    assert set(get_args(Task)) == set(TASKS)
    assert all(longest_answer(task) > 0 for task in TASKS)
    assert longest_answer("vqa") == 16


@pytest.mark.parametrize(
    ("task", "text", "wording", "level"),
    [
        ("caption", "", "Describe what the picture shows", "image"),
        ("vqa", "What is {it}?", "What is {it}?", "image"),
        ("rec", "the red circle", "meant by: the red circle. Answer with its box [x1,y1,x2,y2]", "region"),
        ("reg", "(0.01,0.02),(0.501,1.0)", "region [0.010,0.020,0.501,1.000]", "region"),
    ],
)
def test_questions_are_asked_as_the_evaluation_asks(task: str, text: str, wording: str, level: str) -> None:
    question = build_question(task, text)
    assert wording in question.instruction
    assert question.level == level


def test_own_wordings_and_choices() -> None:
    assert (
        build_question("vqa", "Why?", prompt="Question: {text} Short answer:").instruction
        == "Question: Why? Short answer:"
    )
    assert "Options: a, b." in build_question("vqa_choice", "Which?", ["a", "b"]).instruction


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task": "vqa"}, "needs --text"),
        ({"task": "vqa_choice", "text": "Which?"}, "needs --choices"),
        ({"task": "reg", "text": "the left one"}, "needs --text: a box"),
        # The text does not show whether these are thousandths or pixels.
        ({"task": "reg", "text": "(10,20),(500,999)"}, r"needs --text: a box \[x1,y1,x2,y2\] in \[0, 1\]"),
        ({"task": "caption", "text": "Why?"}, "no place for --text 'Why[?]'"),
        ({"task": "vqa", "text": "Why?", "choices": ["a"]}, "no place for --choices"),
        ({"task": "vqa", "text": "Why?", "prompt": "Say why."}, "'Say why[.]' has no place for --text"),
        ({"task": "dance"}, "no task 'dance'"),
    ],
)
def test_wrong_questions_are_refused(arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_question(**arguments)  # type: ignore[arg-type]
