"""Question records × known images → rows of the instructions table, as a stream."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines import storage
from pipelines.boxes import format_box, normalise_xywh
from pipelines.errors import UserError
from pipelines.instructions.config import InstructionSet
from pipelines.instructions.templates import REC_ANSWER, TASKS, instruction
from pipelines.sources import read_questions
from pipelines.sources.grouping import RowsByKey
from pipelines.sources.records import NO_ANSWER, BadAnnotation, BadRecord, QuestionRecord, fit_box

STAGE = "instructions"
# Reasons beside those of `pipelines.sources.records`.
IMAGE_NOT_TAGGED = "image_not_tagged"
UNKNOWN_SIZE = "unknown_image_size"

Row = dict[str, Any]


class TaggedImages:
    """Where each precomputed image is and how large: an index of a few dozen bytes an image.

    Args:
        tagged: a precompute step's folder, or any folder or file of Parquet with `image_id`, `uri`, `width`, `height`.

    Raises:
        UserError: nothing is there, or the columns are missing.
    """

    def __init__(self, tagged: str) -> None:
        import pyarrow.parquet as pq

        root = storage.absolute(tagged)
        files = storage.list_files(root, ".parquet") if storage.is_folder(root) else [root]
        files = [name for name in files if not {"quarantine", "source"} & set(name.removeprefix(root).split("/"))]
        if not files or not storage.exists(files[0]):
            raise UserError(f"{tagged} holds no Parquet files; give the `path` of a precompute step.")
        self._rows = RowsByKey()
        columns = ["image_id", "uri", "width", "height"]
        for name in files:
            filesystem, path = storage.resolve(name)
            with pq.ParquetFile(path, filesystem=filesystem) as file:
                if missing := set(columns) - set(file.schema_arrow.names):
                    raise UserError(f"{name} lacks {sorted(missing)}; it is not a tagged table.")
                for batch in file.iter_batches(columns=columns):
                    for image_id, uri, width, height in zip(*(column.to_pylist() for column in batch), strict=True):
                        self._rows.add(image_id, json.dumps([uri, width, height]))

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, image_id: str) -> tuple[str, int | None, int | None] | None:
        """URI, width and height in pixels; None where the image was not precomputed."""
        found = self._rows.get(image_id)
        if not found:
            return None
        uri, width, height = json.loads(found[0])
        return uri, width, height


def build_rows(
    entry: InstructionSet, images: TaggedImages, seed: int, left_out: Counter[str]
) -> Iterator[Row | BadRecord]:
    """The rows of one set, in the file's order, and what could not be used.

    Args:
        entry: the set.
        images: the precomputed images.
        seed: of the phrasings.
        left_out: counts rows that the benchmark's own rules leave out; it is added to.

    Raises:
        UserError: a file is missing or of another format.
    """
    tasks = entry.chosen_tasks()
    siblings = _expressions_by_region(entry) if entry.mode == "evaluate" and "reg" in tasks else None
    described: set[str] = set()
    for record in read_questions(entry.kind, entry.files()):
        if isinstance(record, BadRecord):
            yield record
            continue
        image = images.get(record.image_id)
        if image is None:
            yield BadRecord(record.image_id, None, STAGE, IMAGE_NOT_TAGGED, f"{entry.name}: sample {record.sample_id}")
            continue
        for task in tasks:
            try:
                if task == "vqa" and record.difficult and entry.mode == "evaluate":
                    left_out["difficult_direct_answer"] += 1
                elif task == "reg" and siblings is not None:
                    region = _region_of(record)
                    if region not in described:
                        described.add(region)
                        yield from _rows(entry, record, task, image, seed, tuple(siblings.get(region)))
                else:
                    yield from _rows(entry, record, task, image, seed, (record.text,))
            except BadAnnotation as error:
                detail = f"{entry.name}: {task} sample {record.sample_id}: {error}"
                yield BadRecord(record.image_id, image[0], STAGE, error.reason, detail)


def _region_of(record: QuestionRecord) -> str:
    return f"{record.image_id}/{record.region_id or record.sample_id}"


def _expressions_by_region(entry: InstructionSet) -> RowsByKey:
    """All expressions of each region: the references of a region's description."""
    found = RowsByKey()
    for record in read_questions(entry.kind, entry.files()):
        if isinstance(record, QuestionRecord):
            found.add(_region_of(record), record.text)
    return found


def _rows(
    entry: InstructionSet,
    record: QuestionRecord,
    task: str,
    image: tuple[str, int | None, int | None],
    seed: int,
    expressions: tuple[str, ...],
) -> Iterator[Row]:
    """The rows of one record for one task; captions give one a caption in training.

    Raises:
        BadAnnotation: no answer to train on or to score against, or a box that does not fit its image.
    """
    sample_id = f"{entry.name}:{task}:{record.sample_id}"
    values = {"text": record.text, "choices": ", ".join(record.choices)}
    box = _box(record, image) if record.box is not None else None
    if box is not None:
        values["box"] = format_box(box)
    answers = _answers(record, task, entry.mode == "train", values, expressions)
    if not answers and entry.annotations is not None:
        raise BadAnnotation(NO_ANSWER, "the file gives no answer")
    many = task == "caption" and entry.mode == "train"
    for number, said in enumerate([(answer,) for answer in answers] if many else [answers]):
        own_id = f"{sample_id}:{number}" if many else sample_id
        yield {
            "sample_id": own_id,
            "image_id": record.image_id,
            "task": task,
            "level": TASKS[task].level,
            "instruction": instruction(task, entry.mode, values, f"{seed}/{own_id}", entry.prompt),
            "answers": list(said),
            "box": list(box) if box is not None else None,
        }


def _answers(
    record: QuestionRecord, task: str, train: bool, values: Mapping[str, str], expressions: tuple[str, ...]
) -> tuple[str, ...]:
    """What the model is to say (training) or is scored against (evaluation)."""
    if task == "rec":
        return (REC_ANSWER.replace("{box}", values["box"]),)
    if task == "reg":
        return expressions
    if task == "vqa_choice":
        return () if record.correct_choice is None else (record.choices[record.correct_choice],)
    if task == "vqa" and train and record.answers:
        return (Counter(record.answers).most_common(1)[0][0],)  # the annotators' consensus; of equals the first given
    return record.answers


def _box(record: QuestionRecord, image: tuple[str, int | None, int | None]) -> tuple[float, ...]:
    """The record's box, normalised by its image's size.

    Raises:
        BadAnnotation: the size is unknown, or the box lies outside the image.
    """
    _, width, height = image
    if width is None or height is None:
        raise BadAnnotation(UNKNOWN_SIZE, "the tagged table does not say how large the image is")
    assert record.box is not None
    return normalise_xywh(fit_box(record.box, width, height), width, height)
