"""What somebody asks, in the words of the evaluation's templates or in their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.core.errors import UserError
from pipelines.instructions.templates import TASKS, instruction
from pipelines.scoring.benchmarks import benchmark_table
from pipelines.sources.boxes import format_box, parse_box

Task = Literal["caption", "vqa", "vqa_choice", "rec", "reg", "grounded_caption", "statement", "pope"]
_LONGEST = 128  # tokens that LION writes at most, for a task without a limit of its own
_ASKED_FOR = {
    "text": "the question, expression or statement",
    "choices": "the options",
    "box": "a box [x1,y1,x2,y2] in [0, 1]",
}


@dataclass(frozen=True)
class Question:
    """A question about an image.

    Attributes:
        task: a key of `pipelines.instructions.templates.TASKS`.
        text: what was asked, as it was given.
        instruction: how the model is asked.
        level: `image` or `region`: which adapter answers.
    """

    task: str
    text: str
    instruction: str
    level: str


def build_question(task: str, text: str = "", choices: Sequence[str] = (), prompt: str | None = None) -> Question:
    """Return a question in words.

    Args:
        task: what kind of question.
        text: the question, the expression to locate, the statement; for `reg` the box to describe.
        choices: of `vqa_choice`.
        prompt: a wording to use instead of the evaluation's, with {text}, {choices} or {box}.

    Raises:
        UserError: the task is unknown, something that it needs is not given, or something given finds no place.
    """
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; there are {', '.join(TASKS)}.")
    phrasings = TASKS[task]
    needed = [name for name in _ASKED_FOR if "{" + name + "}" in (prompt or "".join(phrasings.placeholders))]
    values = {"text": text.strip(), "choices": ", ".join(choices)}
    if "box" in needed:
        found = parse_box(text)
        values["box"] = format_box(found.box) if found else ""
    for name in needed:
        if not values[name]:
            option = "--choices" if name == "choices" else "--text"
            raise UserError(f"A question of task {task} needs {option}: {_ASKED_FOR[name]}.")
    taken = {"text": {"text", "box"}, "choices": {"choices"}}
    for name in ("text", "choices"):
        if values[name] and not taken[name] & set(needed):
            where = f"The prompt {prompt!r}" if prompt else f"The wording of task {task}"
            raise UserError(
                f"{where} has no place for --{name} {values[name]!r}; leave it out, or choose another task."
            )
    given = {name: values[name] for name in needed}
    return Question(task, text, instruction(task, "evaluate", given, "", prompt), phrasings.level)


def longest_answer(task: str) -> int:
    """Most tokens of an answer: the evaluation's limit, so that the same question gets the same answer here."""
    known = benchmark_table().tasks.get(task)
    return known.max_new_tokens if known else _LONGEST
