"""Entries of the sample world as documents in the benchmarks' own formats."""

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
# The layout of ../shared/data/coco/tags_detector.parquet: parallel lists of tags and scores.
DETECTED_TAGS = pa.schema(
    [("image_id", pa.string()), ("tags", pa.list_(pa.string())), ("tag_scores", pa.list_(pa.float32()))]
)


def coco_captions(entries: Sequence[Entry], form: ImageFormat) -> dict[str, Any]:
    """COCO's captions document."""
    annotations = [
        {"id": entry.image_id * 10 + number, "image_id": entry.image_id, "caption": text}
        for entry in entries
        for number, text in enumerate(entry.captions)
    ]
    head = {"info": {"description": "sample world: captions"}, "licenses": [], "images": _images(entries, form)}
    return {**head, "annotations": annotations}


def coco_instances(entries: Sequence[Entry], form: ImageFormat) -> dict[str, Any]:
    """COCO's instances document: boxes `x, y, width, height` in pixels; a category is a shape."""
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
    """VQAv2's questions and annotations documents."""
    questions, annotations = [], []
    for entry in entries:
        for number, asked in enumerate(entry.vqa):
            identity = {"image_id": entry.image_id, "question_id": entry.image_id * 1000 + number}
            questions.append({**identity, "question": asked.text})
            answers = [
                {"answer": answer, "answer_confidence": "yes" if answer == asked.truth else "maybe", "answer_id": place}
                for place, answer in enumerate(asked.answers, start=1)
            ]
            kinds = {"question_type": asked.question_type, "answer_type": asked.answer_type}
            annotations.append({**identity, **kinds, "multiple_choice_answer": asked.truth, "answers": answers})
    head = {"info": {"description": "sample world: questions"}, "data_type": "sample_world", "data_subtype": split}
    return {**head, "task_type": "Open-Ended", "questions": questions}, {**head, "annotations": annotations}


def aokvqa_rows(entries: Sequence[Entry], form: ImageFormat) -> list[dict[str, Any]]:
    """A-OKVQA's list of questions."""
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
    """Return the list inside RefCOCO's `refs(*).p`; boxes are in the instances document, by `ann_id`."""
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
    """Return a pickle, because RefCOCO's official files are; it holds lists, dicts, text and numbers only."""
    return pickle.dumps(refs, protocol=2)


def detected_tags(entries: Sequence[Entry]) -> bytes:
    """Return the simulated tagger's tags of all images as a Parquet file."""
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
