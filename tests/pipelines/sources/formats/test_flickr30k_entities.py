"""Flickr30K Entities: sentences whose phrases have boxes."""

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import QuestionFiles, read_questions, records
from pipelines.sources.records import BadRecord, QuestionRecord

SENTENCE = (
    "[/EN#12/people A man] in [/EN#13/clothing/other a hat] sees [/EN#0/notvisual it] at [/EN#14/scene night] .\n"
)
BOXES = """<annotation><filename>100.jpg</filename><size><width>500</width><height>333</height><depth>3</depth></size>
<object><name>12</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>220</ymax></bndbox></object>
<object><name>12</name><name>13</name>
  <bndbox><xmin>50</xmin><ymin>10</ymin><xmax>150</xmax><ymax>60</ymax></bndbox></object>
<object><name>14</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder of the release with two images of train and one of test."""
    for name in ("Sentences", "Annotations"):
        (tmp_path / name).mkdir()
    for number in (100, 101, 102):
        (tmp_path / f"Sentences/{number}.txt").write_text(SENTENCE)
        (tmp_path / f"Annotations/{number}.xml").write_text(BOXES)
    for split, ids in {"train": "100\n101\n", "val": "", "test": "102\n"}.items():
        (tmp_path / f"{split}.txt").write_text(ids)
    return tmp_path


def test_a_sentence_with_its_phrases(folder: Path) -> None:
    first, _ = read_questions("flickr30k_entities", QuestionFiles(str(folder), split="train"))
    assert isinstance(first, QuestionRecord)
    assert first.text == "A man in a hat sees it at night ."
    assert first.phrases == (
        ("A man", (9, 9, 140, 210)),  # around both of its boxes
        (" in ", None),
        ("a hat", (49, 9, 100, 50)),
        (" sees ", None),
        ("it", None),
        (" at ", None),
        ("night", None),
        (" .", None),
    )
    assert (first.sample_id, first.image_id, first.split) == ("100-1", "flickr30k/100", "train")


def test_pixels_are_counted_from_1_as_the_authors_reader_has_it(folder: Path) -> None:
    corners = {"xmin": 1, "ymin": 1, "xmax": 10, "ymax": 333}
    box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    xml = f"<annotation><object><name>13</name><bndbox>{box}</bndbox></object></annotation>"
    (folder / "Annotations/102.xml").write_text(xml)
    (record,) = read_questions("flickr30k_phrases", QuestionFiles(str(folder), split="test"))
    assert isinstance(record, QuestionRecord)
    assert record.box == (0, 0, 9, 332)  # x, y, width, height: corners 0 to 9 and 0 to 332


def test_each_phrase_becomes_a_question(folder: Path) -> None:
    rows = list(read_questions("flickr30k_phrases", QuestionFiles(str(folder), split="test")))
    assert [(record.text, record.box) for record in rows if isinstance(record, QuestionRecord)] == [
        ("A man", (9, 9, 140, 210)),
        ("a hat", (49, 9, 100, 50)),
    ]


def test_all_splits_are_told_apart(folder: Path) -> None:
    rows = list(read_questions("flickr30k_entities", QuestionFiles(str(folder))))
    assert [record.split for record in rows if isinstance(record, QuestionRecord)] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("Annotations/100.xml", "<annotation>", records.WRONG_TYPE),
        ("Annotations/100.xml", BOXES.replace(">110<", ">5<"), records.BOX_WITHOUT_AREA),
        ("Annotations/100.xml", BOXES.replace(">110<", ">wide<"), records.WRONG_TYPE),
        ("Annotations/100.xml", None, records.MISSING_FILE),
        ("Sentences/100.txt", None, records.MISSING_FILE),
        ("Sentences/100.txt", "[/EN#12/people A man in a hat", records.WRONG_VALUE),
        ("Sentences/100.txt", b"\xff man", records.WRONG_TYPE),
    ],
)
def test_a_bad_file_becomes_a_bad_record(folder: Path, name: str, content: str | bytes | None, reason: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = list(read_questions("flickr30k_entities", QuestionFiles(str(folder), split="train")))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.image_id for record in rows if isinstance(record, QuestionRecord)] == ["flickr30k/101"]


def test_mistakes(folder: Path) -> None:
    with pytest.raises(UserError, match="no split 'dev'"):
        list(read_questions("flickr30k_entities", QuestionFiles(str(folder), split="dev")))
    with pytest.raises(UserError, match=r"no Sentences/\*\.txt"):
        list(read_questions("flickr30k_entities", QuestionFiles(str(folder / "Annotations"))))
