"""The rows of the instructions table, from a question record and its image. Pure functions, one record at a time."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.instructions.config import InstructionSet
from pipelines.instructions.images import Picture
from pipelines.instructions.templates import REC_ANSWER, TASKS, Mode, instruction
from pipelines.sources.boxes import Box, Notation, format_box, normalize_xywh
from pipelines.sources.grounding import Span, write
from pipelines.sources.records import NO_ANSWER, BadAnnotation, BadRecord, QuestionRecord, Xywh, fit_box

STAGE = "instructions"
# Reasons of the quarantine, in addition to those of `pipelines.sources.records`.
IMAGE_NOT_TAGGED = "image_not_tagged"
EVALUATION_IMAGE = "evaluation_image"
OTHER_PICTURE = "other_picture"
UNKNOWN_SIZE = "unknown_image_size"
_REGION_PHRASE = "this"
"""The phrase of a region that is to be described, in notations that have no box without a phrase."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Wording:
    """The settings that decide the text of a row.

    Attributes:
        seed: decides which phrasing each training sample has.
        notation: how boxes are written.
    """

    seed: int
    notation: Notation = "lion"


def build_rows(
    entry: InstructionSet,
    record: QuestionRecord,
    picture: Picture,
    wording: Wording,
    left_out: Counter[str],
    expressions: tuple[str, ...] | None = None,
) -> Iterator[Row | BadRecord]:
    """Yield the rows of one record, and a `BadRecord` for each task that it cannot be used for.

    Args:
        entry: the set of the record.
        record: the question.
        picture: its image.
        wording: the settings of the text.
        left_out: counts of rows that the rules of a benchmark or a task leave out; this function adds to it.
        expressions: all expressions of the record's region, which are the references of a description. Empty: another
            record of the region has them. None: the record's own text is the only reference.
    """
    for task in entry.chosen_tasks():
        try:
            if task == "vqa" and record.difficult and entry.mode == "evaluate":
                left_out["difficult_direct_answer"] += 1
            elif task == "vqa_choice" and not record.choices:
                left_out["without_choices"] += 1
            elif task != "reg" or expressions != ():
                yield from _rows(entry, record, task, picture, wording, expressions or (record.text,))
        except BadAnnotation as error:
            detail = f"{entry.name}: {task} sample {record.sample_id}: {error}"
            yield BadRecord(record.image_id, picture.uri, STAGE, error.reason, detail)


def _rows(
    entry: InstructionSet,
    record: QuestionRecord,
    task: str,
    picture: Picture,
    wording: Wording,
    expressions: tuple[str, ...],
) -> Iterator[Row]:
    """Yield the rows of one record for one task: one row, or in training one for each caption.

    Raises:
        BadAnnotation: there is no answer to train on or to score against, or a box does not fit the image.
    """
    sample_id = f"{entry.name}:{task}:{record.sample_id}"
    box = _box(record.box, picture) if record.box is not None else None
    values = {"text": record.text, "choices": ", ".join(record.choices)}
    if box is not None:
        values["box"] = _region(box, record.text if task == "rec" else _REGION_PHRASE, wording.notation)
    answers = _answers(record, task, entry.mode == "train", values, expressions, picture, wording)
    if not answers and entry.annotations is not None:
        raise BadAnnotation(NO_ANSWER, "the file gives no answer")
    many = task == "caption" and entry.mode == "train"
    mode: Mode = "train" if entry.mode == "train" else "evaluate"
    for number, references in enumerate([(answer,) for answer in answers] if many else [answers]):
        own_id = f"{sample_id}:{number}" if many else sample_id
        yield {
            "sample_id": own_id,
            "image_id": record.image_id,
            "task": task,
            "level": TASKS[task].level,
            "instruction": instruction(task, mode, values, f"{wording.seed}/{own_id}", entry.prompt, wording.notation),
            "answers": list(references),
            "box": list(box) if box is not None else None,
        }


def _region(box: Box, phrase: str, notation: Notation) -> str:
    return format_box(box) if notation == "lion" else write([Span(phrase, box)], notation)


def _answers(
    record: QuestionRecord,
    task: str,
    train: bool,
    values: Mapping[str, str],
    expressions: tuple[str, ...],
    picture: Picture,
    wording: Wording,
) -> tuple[str, ...]:
    """Return the answer to train on, or the references to score against."""
    if task == "rec":
        return (REC_ANSWER.replace("{box}", values["box"]),)
    if task == "reg":
        return expressions
    if task == "grounded_caption":
        pieces = [Span(text, _box(box, picture) if box is not None else None) for text, box in record.phrases]
        return (write(pieces, wording.notation),) if pieces else ()
    if task == "vqa_choice":
        return () if record.correct_choice is None else (record.choices[record.correct_choice],)
    if task == "vqa" and train and record.answers:
        return (Counter(record.answers).most_common(1)[0][0],)  # the most frequent; of equally frequent ones the first
    return record.answers


def _box(box: Xywh, picture: Picture) -> Box:
    """Return a box in pixels, normalized by its image's size.

    Raises:
        BadAnnotation: the size of the image is unknown, or the box is outside it.
    """
    if picture.width is None or picture.height is None:
        raise BadAnnotation(UNKNOWN_SIZE, "the tagged table does not say how large the image is")
    return normalize_xywh(fit_box(box, picture.width, picture.height), picture.width, picture.height)
