"""Questions to a model, in the wording of the evaluation's templates or in the user's wording."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.core.errors import UserError
from pipelines.instructions.templates import TASKS, instruction
from pipelines.scoring.benchmarks import benchmark_table
from pipelines.sources.boxes import format_box, parse_box

Task = Literal["caption", "vqa", "vqa_choice", "rec", "reg", "grounded_caption", "statement", "pope"]
_LONGEST = 128  # largest number of tokens of a task without a limit in the table of benchmarks
_DESCRIPTIONS = {
    "text": "the question, expression or statement",
    "choices": "the options",
    "box": "a box [x1,y1,x2,y2] in [0, 1]",
}


@dataclass(frozen=True)
class Question:
    """A question about an image.

    Attributes:
        task: a key of `pipelines.instructions.templates.TASKS`.
        text: the user's question, expression, statement or box.
        instruction: the text that the model reads.
        level: `image` or `region`: the adapter that answers.
    """

    task: str
    text: str
    instruction: str
    level: str


def build_question(task: str, text: str = "", choices: Sequence[str] = (), prompt: str | None = None) -> Question:
    """Return a question with its instruction.

    Args:
        task: a key of `pipelines.instructions.templates.TASKS`.
        text: the question, the expression to locate, the statement; for `reg` the box to describe.
        choices: the options of `vqa_choice`.
        prompt: a wording in place of the evaluation's, with {text}, {choices} or {box}.

    Raises:
        UserError: the task is unknown, a value that it needs is missing, or a value is not used by the wording.
    """
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; there are {', '.join(TASKS)}.")
    phrasings = TASKS[task]
    needed = [name for name in _DESCRIPTIONS if "{" + name + "}" in (prompt or "".join(phrasings.placeholders))]
    values = {"text": text.strip(), "choices": ", ".join(choices)}
    if "box" in needed:
        parsed = parse_box(text)
        values["box"] = format_box(parsed.box) if parsed else ""
    for name in needed:
        if not values[name]:
            option = "--choices" if name == "choices" else "--text"
            raise UserError(f"A question of task {task} needs {option}: {_DESCRIPTIONS[name]}.")
    used_by = {"text": {"text", "box"}, "choices": {"choices"}}
    for name in ("text", "choices"):
        if values[name] and not used_by[name] & set(needed):
            wording = f"The prompt {prompt!r}" if prompt else f"The wording of task {task}"
            raise UserError(
                f"{wording} has no place for --{name} {values[name]!r}; leave it out, or choose another task."
            )
    arguments = {name: values[name] for name in needed}
    return Question(task, text, instruction(task, "evaluate", arguments, "", prompt), phrasings.level)


def longest_answer(task: str) -> int:
    """Return the largest number of tokens of an answer: the evaluation's limit, so that both give the same answers."""
    defaults = benchmark_table().tasks.get(task)
    return defaults.max_new_tokens if defaults else _LONGEST
