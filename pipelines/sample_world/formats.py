"""Convert entries of the sample world to documents in the benchmarks' file formats."""

import hashlib
import pickle
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sample_world import drawing, tagging
from pipelines.sample_world.drawing import ImageFormat
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import SHAPES

CATEGORY_IDS = {shape: number for number, shape in enumerate(SHAPES, start=1)}
# Parallel lists of tags and scores: the layout in which detectors' tags of COCO images are published.
DETECTED_TAGS = pa.schema(
    [("image_id", pa.string()), ("tags", pa.list_(pa.string())), ("tag_scores", pa.list_(pa.float32()))]
)


def coco_captions(entries: Sequence[Entry], form: ImageFormat) -> dict[str, Any]:
    """Return the captions as a document in COCO's format."""
    annotations = [
        {"id": entry.image_id * 10 + number, "image_id": entry.image_id, "caption": text}
        for entry in entries
        for number, text in enumerate(entry.captions)
    ]
    head = {"info": {"description": "sample world: captions"}, "licenses": [], "images": _images(entries, form)}
    return {**head, "annotations": annotations}


def coco_instances(entries: Sequence[Entry], form: ImageFormat) -> dict[str, Any]:
    """Return the objects as a document in COCO's instances format.

    A box is `x, y, width, height` in pixels; a category is a shape.
    """
    annotations = [
        {
            "id": _annotation_id(entry, number),
            "image_id": entry.image_id,
            "category_id": CATEGORY_IDS[item.shape],
            "bbox": [item.x, item.y, item.width, item.height],
            "area": drawing.painted_area(item),
            "iscrowd": 0,
        }
        for entry in entries
        for number, item in enumerate(entry.scene.objects)
    ]
    categories = [{"supercategory": "shape", "id": number, "name": shape} for shape, number in CATEGORY_IDS.items()]
    head = {"info": {"description": "sample world: objects"}, "licenses": [], "categories": categories}
    return {**head, "images": _images(entries, form), "annotations": annotations}


def vqa_documents(entries: Sequence[Entry], split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the questions and the annotations as two documents in VQAv2's format."""
    questions, annotations = [], []
    for entry in entries:
        for number, question in enumerate(entry.vqa):
            identity = {"image_id": entry.image_id, "question_id": entry.image_id * 1000 + number}
            questions.append({**identity, "question": question.text})
            answers = [
                {
                    "answer": answer,
                    "answer_confidence": "yes" if answer == question.truth else "maybe",
                    "answer_id": answer_id,
                }
                for answer_id, answer in enumerate(question.answers, start=1)
            ]
            kinds = {"question_type": question.question_type, "answer_type": question.answer_type}
            annotations.append({**identity, **kinds, "multiple_choice_answer": question.truth, "answers": answers})
    head = {"info": {"description": "sample world: questions"}, "data_type": "sample_world", "data_subtype": split}
    return {**head, "task_type": "Open-Ended", "questions": questions}, {**head, "annotations": annotations}


def aokvqa_rows(entries: Sequence[Entry], form: ImageFormat) -> list[dict[str, Any]]:
    """Return the multiple-choice questions as rows in A-OKVQA's format."""
    return [
        {
            "split": entry.split,
            "image_id": entry.image_id,
            "question_id": hashlib.sha256(entry.file_name(form).encode()).hexdigest()[:22],
            "question": entry.choice.text,
            "choices": list(entry.choice.choices),
            "correct_choice_idx": entry.choice.correct_choice,
            "direct_answers": list(entry.choice.direct_answers),
            "difficult_direct_answer": False,
            "rationales": list(entry.choice.rationales),
        }
        for entry in entries
    ]


def refcoco_refs(entries: Sequence[Entry], form: ImageFormat) -> list[dict[str, Any]]:
    """Return the referring expressions as the list in RefCOCO's `refs(*).p`.

    Their boxes are in the instances document, under `ann_id`.
    """
    refs: list[dict[str, Any]] = []
    next_sentence = 0
    for entry in entries:
        for number, texts in entry.expressions:
            sentences = [
                {"sent_id": sent_id, "sent": text, "raw": text, "tokens": text.split()}
                for sent_id, text in enumerate(texts, start=next_sentence)
            ]
            next_sentence += len(texts)
            refs.append(
                {
                    "ref_id": len(refs),
                    "ann_id": _annotation_id(entry, number),
                    "image_id": entry.image_id,
                    "category_id": CATEGORY_IDS[entry.scene.objects[number].shape],
                    "file_name": entry.file_name(form),
                    "split": entry.split,
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                }
            )
    return refs


def pickled(refs: list[dict[str, Any]]) -> bytes:
    """Return the list as a pickle, the format of RefCOCO's official files."""
    return pickle.dumps(refs, protocol=2)


def detected_tags(entries: Sequence[Entry]) -> bytes:
    """Return the simulated tagger's tags of all images as the bytes of a Parquet file."""
    columns = [
        [str(entry.image_id) for entry in entries],
        [[tag for tag, _ in entry.tags] for entry in entries],
        [[score for _, score in entry.tags] for entry in entries],
    ]
    metadata = {"tagger": "sample world, simulated", "score_floor": str(tagging.SCORE_FLOOR)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=DETECTED_TAGS.with_metadata(metadata)), sink)
    return sink.getvalue().to_pybytes()


def _images(entries: Sequence[Entry], form: ImageFormat) -> list[dict[str, Any]]:
    return [
        {
            "id": entry.image_id,
            "file_name": entry.file_name(form),
            "width": entry.scene.width,
            "height": entry.scene.height,
        }
        for entry in entries
    ]


def _annotation_id(entry: Entry, number: int) -> int:
    return entry.image_id * 10 + number
