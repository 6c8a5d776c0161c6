"""A value that is not Unicode makes one bad record, with the same reason in every format and encoding."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ijson
import pyarrow as pa
import pytest

from pipelines.sources import QUESTION_SOURCES, QuestionFiles, read_questions, records
from pipelines.sources.decoding import JsonBytes, text_chunks
from pipelines.sources.records import BadRecord, QuestionRecord
from pipelines.sources.streams import array_elements, is_array, json_lines

LONE = [r"\ud83d", r"\udc36", r"\ud83dA", r"\ud83d\ud83d"]
Files = Callable[[Path, str], QuestionFiles]


def _write(folder: Path, name: str, document: Any, text: str) -> str:
    """Write a document with `text`, an escape, in the place of ESCAPE; a list is JSON lines unless `name` is .json."""
    path = folder / name
    content = json.dumps(document) if not isinstance(document, list) or name.endswith(".json") else "".join(
        json.dumps(row) + "\n" for row in document
    )  # fmt: skip
    path.write_text(content.replace("ESCAPE", text))
    return str(path)


def _captions(folder: Path, text: str) -> QuestionFiles:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    captions = [
        {"image_id": 1, "caption": "a ESCAPE dog"},
        {"image_id": 1, "caption": "a dog"},
        {"image_id": 2, "caption": "cat"},
    ]
    return QuestionFiles(_write(folder, "captions.json", {"images": images, "annotations": captions}, text))


def _textcaps(folder: Path, text: str) -> QuestionFiles:
    rows = [
        {"image_id": "a", "caption_str": "a ESCAPE dog"},
        {"image_id": "a", "caption_str": "a dog"},
        {"image_id": "b", "caption_str": "cat"},
    ]
    return QuestionFiles(_write(folder, "textcaps.json", {"data": rows}, text))


def _flickr30k(folder: Path, text: str) -> QuestionFiles:
    sentences = [{"raw": "a ESCAPE dog"}, {"raw": "a dog"}]
    images = [
        {"filename": "1.jpg", "split": "train", "sentences": sentences},
        {"filename": "2.jpg", "split": "train", "sentences": sentences[1:]},
    ]
    return QuestionFiles(_write(folder, "flickr.json", {"images": images}, text))


def _vqa(folder: Path, text: str) -> QuestionFiles:
    questions = [{"image_id": n, "question_id": n, "question": "Who?"} for n in (1, 2, 3)]
    answers = [
        {"image_id": n, "question_id": n, "answers": [{"answer": "a ESCAPE dog" if n == 1 else "dog"}]}
        for n in (1, 2, 3)
    ]
    return QuestionFiles(
        _write(folder, "vqa_answers.json", {"annotations": answers}, text),
        _write(folder, "vqa_questions.json", {"questions": questions}, text),
    )


def _aokvqa(folder: Path, text: str) -> QuestionFiles:
    row = {"image_id": 1, "split": "val", "question": "Who?", "choices": ["a", "b"], "correct_choice_idx": 0}
    rows = [
        {**row, "question_id": "1", "direct_answers": ["a ESCAPE dog"]},
        {**row, "question_id": "2", "direct_answers": ["dog"]},
        {**row, "question_id": "3", "direct_answers": ["dog"]},
    ]
    return QuestionFiles(_write(folder, "aokvqa.json", rows, text))


def _gqa(folder: Path, text: str) -> QuestionFiles:
    row = {"imageId": "1", "question": "Who?", "answer": "dog"}
    return QuestionFiles(
        _write(folder, "gqa.json", {"1": {**row, "question": "a ESCAPE dog"}, "2": row, "3": row}, text)
    )


def _ocrvqa(folder: Path, text: str) -> QuestionFiles:
    row = {"split": 1, "questions": ["Who?"], "answers": ["dog"]}
    return QuestionFiles(
        _write(folder, "ocrvqa.json", {"1": {**row, "answers": ["a ESCAPE dog"]}, "2": row, "3": row}, text)
    )


def _vsr(folder: Path, text: str) -> QuestionFiles:
    row = {"image": "000000050403.jpg", "caption": "The dog is left.", "label": 1}
    return QuestionFiles(_write(folder, "vsr.jsonl", [{**row, "caption": "a ESCAPE dog"}, row, row], text))


def _iconqa(folder: Path, text: str) -> QuestionFiles:
    row = {"question": "Who?", "choices": ["a", "b"], "answer": 0}
    problems = {"1": {**row, "choices": ["a ESCAPE dog", "b"]}, "2": row, "3": row}
    splits: dict[str, list[int]] = {
        f"{kind}_{name}": [] for kind in ("choose_txt", "fill_in_blank") for name in ("train", "val", "test")
    }
    _write(folder, "pid_splits.json", {**splits, "choose_txt_train": [1, 2, 3]}, text)
    return QuestionFiles(_write(folder, "problems.json", problems, text))


def _visdial(folder: Path, text: str) -> QuestionFiles:
    turn = {"question": 0, "answer": 0}
    dialogs = [
        {"image_id": 1, "caption": "a dog", "dialog": [turn, {"question": 0, "answer": 1}]},
        {"image_id": 2, "caption": "a dog", "dialog": [turn]},
    ]
    data = {"questions": ["who"], "answers": ["a dog", "a ESCAPE dog"], "dialogs": dialogs}
    return QuestionFiles(_write(folder, "visdial.json", {"split": "train", "data": data}, text))


def _refcoco(folder: Path, text: str) -> QuestionFiles:
    row = {"dataset": "r", "split": "val", "image_id": 1, "ann_id": 1, "bbox_xywh": [0, 0, 2, 2], "expression": "dog"}
    rows = [{**row, "index": n, "expression": "a ESCAPE dog" if n == 1 else "dog"} for n in (1, 2, 3)]
    return QuestionFiles(_write(folder, "refcoco.jsonl", rows, text))


def _refcoco_pickle(folder: Path, text: str) -> QuestionFiles:
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
    }
    instances = _write(folder, "instances.json", document, text)
    sentences = [{"sent_id": n, "sent": json.loads(f'"a {text} dog"') if n == 1 else "dog"} for n in (1, 2, 3)]
    refs = [{"image_id": 1, "ann_id": 1, "split": "val", "sentences": sentences}]
    (folder / "refs.p").write_bytes(pickle.dumps(refs, protocol=2))
    return QuestionFiles(str(folder / "refs.p"), instances=instances)


def _visual_genome(folder: Path, text: str) -> QuestionFiles:
    region = {"x": 0, "y": 0, "width": 2, "height": 2}
    regions = [{**region, "region_id": n, "phrase": "a ESCAPE dog" if n == 1 else "dog"} for n in (1, 2, 3)]
    _write(folder, "image_data.json", [], text)
    return QuestionFiles(_write(folder, "regions.json", [{"id": 1, "regions": regions}], text))


def _pope(folder: Path, text: str, name: str = "pope.jsonl") -> QuestionFiles:
    row = {"image": "000000050403.jpg", "label": "yes"}
    rows = [{**row, "question_id": n, "text": "a ESCAPE dog" if n == 1 else "Is there a dog?"} for n in (1, 2, 3)]
    return QuestionFiles(_write(folder, name, rows, text))


READERS: dict[str, tuple[str, Files]] = {
    "coco_captions": ("coco_captions", _captions),
    "textcaps": ("textcaps", _textcaps),
    "flickr30k": ("flickr30k", _flickr30k),
    "vqa": ("vqa", _vqa),
    "aokvqa": ("aokvqa", _aokvqa),
    "gqa": ("gqa", _gqa),
    "ocrvqa": ("ocrvqa", _ocrvqa),
    "vsr": ("vsr", _vsr),
    "iconqa": ("iconqa", _iconqa),
    "visdial": ("visdial", _visdial),
    "refcoco lines": ("refcoco", _refcoco),
    "refcoco pickle": ("refcoco", _refcoco_pickle),
    "visual_genome": ("visual_genome", _visual_genome),
    "pope lines": ("pope", _pope),
    "pope array": ("pope", lambda folder, text: _pope(folder, text, "pope.json")),
}
_NO_JSON = {"flickr30k_entities", "flickr30k_phrases"}  # text and XML: a byte that is not UTF-8 is in their own tests


def test_every_reader_is_tried() -> None:
    assert {kind for kind, _ in READERS.values()} | _NO_JSON == set(QUESTION_SOURCES)


@pytest.mark.parametrize("text", LONE)
@pytest.mark.parametrize("reader", READERS)
def test_half_a_surrogate_pair_makes_one_bad_record(tmp_path: Path, reader: str, text: str) -> None:
    kind, files = READERS[reader]
    results = list(read_questions(kind, files(tmp_path, text)))
    bad = [record for record in results if isinstance(record, BadRecord)]
    reasons = [record.reason for record in bad]
    # The question of a VQA annotation that was set aside has no answer.
    assert reasons == [records.WRONG_TYPE, *([records.NO_ANSWER] if kind == "vqa" else [])]
    assert "not UTF-8 text" in bad[0].detail
    good = [record for record in results if isinstance(record, QuestionRecord)]
    assert len(good) == 2
    assert "?" not in "".join(answer for record in good for answer in record.answers)


def test_a_whole_pair_is_a_character(tmp_path: Path) -> None:
    for reader, (kind, files) in READERS.items():
        results = list(read_questions(kind, files(tmp_path, r"\ud83d\udc36")))
        assert all(isinstance(record, QuestionRecord) for record in results), reader
        assert any("\U0001f436" in f"{record}" for record in results), reader


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["array", "lines"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str, kind: str) -> None:
    rows = [{"a": "é😀\ud83d"}, {"a": "b"}]
    path = tmp_path / "rows"
    content = json.dumps(rows) if kind == "array" else "\n".join(map(json.dumps, rows))
    path.write_bytes(content.encode(encoding))
    assert is_array(str(path)) == (kind == "array")
    read = array_elements(str(path), None) if kind == "array" else (row for _, row in json_lines(str(path)))
    assert list(read) == rows


@pytest.mark.parametrize("reader", [name for name in READERS if name != "refcoco pickle"])
def test_a_byte_that_is_not_utf8_makes_one_bad_record(tmp_path: Path, reader: str) -> None:
    kind, files = READERS[reader]
    where = files(tmp_path, "MARKED")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"MARKED", b"\xe9t\xe9"))
    results = list(read_questions(kind, where))
    bad = [record for record in results if isinstance(record, BadRecord)]
    assert bad[0].reason == records.WRONG_TYPE
    assert "not UTF-8 text" in bad[0].detail
    assert sum(isinstance(record, QuestionRecord) for record in results) == 2


@pytest.mark.parametrize("size", [3, 5, 13, 1 << 16])
def test_escapes_at_the_border_of_two_reads(size: int) -> None:
    texts = [
        "\ud83d\ude00",
        "\ud83d",
        "\\ud83d",
        "\\\ud83d",
        "a\udc00\ud83dA",
        "\ud83d\ud83d\ude00",
        "\\" * 15 + "\ud83d",
    ]
    document = [text + "é" * pad for text in texts for pad in range(4)]
    content = JsonBytes(pa.BufferReader(json.dumps(document).encode()))
    content._chunks = text_chunks(pa.BufferReader(json.dumps(document).encode()), size)
    expected = json.loads(json.dumps(document))
    assert [content.restored(text) for text in ijson.items(content, "item")] == expected
