"""What a build of instructions is asked to do."""

import dataclasses
import re

from pipelines.errors import UserError
from pipelines.instructions.templates import TASKS, Mode
from pipelines.sources import QuestionFiles, question_source
from pipelines.sources.refcoco import instances_beside
from pipelines.steps import runtime_field

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclasses.dataclass(frozen=True)
class InstructionSet:
    """One set of questions and what is made of it."""

    name: str
    """Its name: the beginning of its samples' ids."""
    kind: str
    """Format of its files: a question source, such as coco_captions, vqa, aokvqa, refcoco or pope."""
    annotations: str | None = None
    """The annotation file; empty only for VQA's test splits, which have no answers."""
    questions: str | None = None
    """The questions file of VQA, where it is another one."""
    instances: str | None = None
    """The boxes of RefCOCO's refs(*).p; empty: instances.json beside it."""
    split: str | None = None
    """Only rows of this split, of files that hold several (A-OKVQA, RefCOCO); empty: all."""
    tasks: list[str] = dataclasses.field(default_factory=list)
    """What is made of each row, such as rec and reg; empty: the format's usual task."""
    mode: Mode = "train"
    """train: one answer a sample. evaluate: all references, and a phrasing that training never shows."""
    prompt: str | None = None
    """A wording of your own or of a benchmark, with {text}, {choices} or {box}; empty: the project's phrasings."""

    def files(self) -> QuestionFiles:
        """Where its files are."""
        return QuestionFiles(self.annotations, self.questions, self.instances, self.split)

    def paths(self) -> dict[str, str]:
        """Every file that it reads, by the name of its field."""
        instances = self.instances
        if self.kind == "refcoco" and self.annotations and not instances:
            instances = instances_beside(self.annotations)
        named = {"annotations": self.annotations, "questions": self.questions, "instances": instances}
        return {name: path for name, path in named.items() if path}

    def chosen_tasks(self) -> tuple[str, ...]:
        """Its tasks, each once."""
        return tuple(dict.fromkeys(self.tasks)) or question_source(self.kind).tasks[:1]


@dataclasses.dataclass(frozen=True)
class InstructionsConfig:
    """Turns question files into the instructions table: questions in words, their answers, and boxes as text."""

    tagged: str = ""
    """The precomputed images (a precompute step's path); questions about other images are set aside."""
    sets: list[InstructionSet] = dataclasses.field(default_factory=list)
    """The sets of questions, in the order in which they are written."""
    out: str = "runs"
    """Folder or URI under which the step's folder is made."""
    seed: int = 0
    """Decides which phrasing each training sample has."""
    part_rows: int = 50_000
    """Rows of a Parquet file."""
    max_bad_fraction: float = runtime_field(0.01)
    """The largest share of bad annotations that is accepted; images that are not in `tagged` are not counted as bad."""


def check(config: InstructionsConfig) -> None:
    """Refuses what cannot work before anything is read.

    Raises:
        UserError: says what to change.
    """
    if not config.tagged:
        raise UserError("tagged is empty; give the `path` of a precompute step.")
    if not config.sets:
        raise UserError("sets is empty; name at least one set of questions.")
    if config.part_rows < 1:
        raise UserError(f"part_rows is {config.part_rows}; set it to 1 or more.")
    if not 0 <= config.max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction is {config.max_bad_fraction}; it is a share between 0 and 1.")
    names = [entry.name for entry in config.sets]
    for entry in config.sets:
        if names.count(entry.name) > 1:
            raise UserError(f"Two sets are named {entry.name!r}; give each a name of its own.")
        _check_set(entry)


def _check_set(entry: InstructionSet) -> None:
    if not _NAME.fullmatch(entry.name):
        raise UserError(f"The set name {entry.name!r} must be letters, digits and any of _ . + - only.")
    source = question_source(entry.kind)
    for name in ("questions", "instances", "split"):
        if getattr(entry, name) is not None and name not in source.uses:
            raise UserError(f"Set {entry.name!r}: {entry.kind} has no use for {name}; leave it out.")
    possible = source.tasks
    for task in entry.chosen_tasks():
        if task not in possible:
            raise UserError(f"Set {entry.name!r}: {entry.kind} has no task {task!r}; it has {', '.join(possible)}.")
        wanted = TASKS[task].placeholders
        if entry.prompt is not None and not all(name in entry.prompt for name in wanted):
            raise UserError(f"Set {entry.name!r}: the prompt for {task} must hold {' and '.join(wanted)}.")
    if entry.annotations is None and (entry.kind != "vqa" or entry.mode == "train" or entry.questions is None):
        raise UserError(f"Set {entry.name!r} has no annotation file; set annotations.")
