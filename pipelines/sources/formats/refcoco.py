"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one box (Yu et al. 2016, Mao et al. 2016).

Two forms: the official `refs(*).p` with `instances.json` in the same folder, and JSON lines `{"dataset", "split",
"index", "image_id", "ann_id", "expression", "bbox_xywh"}`.
"""

import io
import pickle
from collections.abc import Iterator
from typing import Any, NoReturn

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.formats.coco_instances import InstanceBox, read_boxes
from pipelines.sources.records import (
    DUPLICATE_ID,
    UNKNOWN_REGION,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    Xywh,
    box_field,
    field,
    id_field,
    text_field,
)
from pipelines.sources.streams import json_lines, open_stream


def read_questions(
    annotations: str, split: str | None, instances: str | None = None
) -> Iterator[QuestionRecord | BadRecord]:
    """Yield a record per expression, in the order of the file.

    Args:
        annotations: `refs(*).p`, or a JSON-lines file.
        split: read only expressions of this split (train, val, testA, …); None: all.
        instances: the boxes of the pickle form; None: `instances.json` in the same folder.

    Raises:
        UserError: a file is missing or has another format, or the pickle would run code.
    """
    boxes = instances or default_instances(annotations)
    if boxes is not None:
        yield from _from_pickle(annotations, split, boxes)
    else:
        yield from _from_lines(annotations, split)


def default_instances(annotations: str) -> str | None:
    """Return the default path of the boxes of a `refs(*).p`; None for JSON lines, which contain boxes."""
    if not annotations.endswith((".p", ".pkl", ".pickle")):
        return None
    return storage.join(storage.absolute(annotations).rpartition("/")[0], "instances.json")


def _from_lines(annotations: str, split: str | None) -> Iterator[QuestionRecord | BadRecord]:
    seen: set[str] = set()
    for number, entry in json_lines(annotations):
        where, image_id = f"line {number}", None
        try:
            if isinstance(entry, BadAnnotation):
                raise entry
            image_id = id_field(entry, "image_id", where)
            row_split = text_field(entry, "split", where)
            if split is not None and row_split != split:
                continue
            sample_id = f"{text_field(entry, 'dataset', where)}-{row_split}-{id_field(entry, 'index', where)}"
            if sample_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: {sample_id} was there before")
            seen.add(sample_id)
            box = box_field(entry, "bbox_xywh", where)
            text, region = text_field(entry, "expression", where), id_field(entry, "ann_id", where)
            yield _record(sample_id, image_id, text, box, region, row_split)
        except BadAnnotation as error:
            yield error.record(image_id)


def _record(sample_id: str, image_id: str, text: str, box: Xywh, region: str, split: str) -> QuestionRecord:
    return QuestionRecord(sample_id, image_id, "rec", "region", text, (), box=box, region_id=region, split=split)


def _from_pickle(annotations: str, split: str | None, instances: str) -> Iterator[QuestionRecord | BadRecord]:
    refs = load_refs(annotations)
    chosen = [(number, ref) for number, ref in enumerate(refs) if split is None or _split_of(ref) in (split, None)]
    annotation_ids = frozenset(str(ref["ann_id"]) for _, ref in chosen if isinstance(ref, dict) and "ann_id" in ref)
    boxes: dict[str, InstanceBox] = {}
    for box in read_boxes(instances, annotation_ids):
        if isinstance(box, BadRecord):
            yield box
        else:
            boxes[box.annotation_id] = box
    seen: set[str] = set()
    for number, ref in chosen:
        where, image_id = f"ref {number}", None
        try:
            image_id = id_field(ref, "image_id", where)
            region = id_field(ref, "ann_id", where)
            row_split = str(field(ref, "split", str, where))
            # A box of another image shows that the instances belong to another set of refs.
            if region not in boxes or boxes[region].image_id != image_id:
                raise BadAnnotation(UNKNOWN_REGION, f"{where}: image {image_id} has no usable box {region}")
            sentences = field(ref, "sentences", list, where)
        except BadAnnotation as error:
            yield error.record(image_id)
            continue
        for sentence in sentences:
            try:
                sample_id = id_field(sentence, "sent_id", f"a sentence of {where}")
                if sample_id in seen:
                    raise BadAnnotation(DUPLICATE_ID, f"{where}: sentence {sample_id} was there before")
                seen.add(sample_id)
                text = text_field(sentence, "sent", f"sentence {sample_id} of {where}")
                yield _record(sample_id, image_id, text, boxes[region].box, region, row_split)
            except BadAnnotation as error:
                yield error.record(image_id)


def _split_of(ref: Any) -> str | None:
    """Return the split of a ref; None if it has none. Such a ref is read for every split and becomes a bad record."""
    return ref.get("split") if isinstance(ref, dict) and isinstance(ref.get("split"), str) else None


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler for numbers, texts, lists and dicts. It raises for everything that would import or call code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it would import {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def load_refs(path: str) -> list[Any]:
    """Return the list in a `refs(*).p` without running code of the pickle.

    The official files were written by Python 2, so texts may not be UTF-8. Their refs become bad records when read.

    Raises:
        UserError: the file is missing, is not a pickle, would run code, or is not a list.
    """
    with open_stream(path) as stream:
        content = io.BytesIO(stream.read())
    try:
        refs = _PlainUnpickler(content, encoding="utf-8", errors="surrogateescape").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} is not a plain RefCOCO pickle: {error} (near byte {content.tell()}). No code of it was run."
        ) from error
    if not isinstance(refs, list):
        raise UserError(f"{path} contains a {type(refs).__name__} instead of RefCOCO's list of refs.")
    return refs
