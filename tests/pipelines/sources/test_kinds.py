"""Formats are selected by kind, and a format from outside the package needs one module and one registration."""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.cli import make_parser
from pipelines.core.errors import UserError
from pipelines.core.tables import TAGGED, to_table
from pipelines.instructions import InstructionsConfig, InstructionSet, instructions
from pipelines.precompute import PrecomputeConfig, SourceConfig, TaggerConfig
from pipelines.precompute.config import check
from pipelines.sources import (
    IMAGE_SOURCES,
    QUESTION_SOURCES,
    ImageRecord,
    ImageSource,
    QuestionFiles,
    QuestionSource,
    image_source,
    question_source,
    read_images,
    read_questions,
    register_image_source,
    register_question_source,
)

TOY = "tests.pipelines.sources.toy_format"


@pytest.fixture(autouse=True)
def unregister() -> Iterator[None]:
    """Remove the format after each test, so that other tests see only the formats of the project."""
    yield
    IMAGE_SOURCES.pop("bird_list", None)
    QUESTION_SOURCES.pop("birds", None)
    sys.modules.pop(TOY, None)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Write two questions about two birds, and a line without a question."""
    rows = [
        {"file": "sparrow.jpg", "question": "What color is it?", "answer": "brown"},
        {"file": "heron.jpg", "question": "Where is it?", "answer": "in the water"},
        {"file": "swan.jpg", "answer": "white"},
    ]
    path = tmp_path / "birds.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_format_of_a_users_module_is_read_by_its_kind(birds: Path) -> None:
    images = list(read_images(f"{TOY}:bird_list", str(birds), "/pictures", "train"))
    uris = [record.uri for record in images if isinstance(record, ImageRecord)]
    assert uris == ["/pictures/sparrow.jpg", "/pictures/heron.jpg"]
    records = list(read_questions(f"{TOY}:birds", QuestionFiles(str(birds))))
    assert [record.image_id for record in records] == ["birds/sparrow.jpg", "birds/heron.jpg", None]
    # The module is imported now, so that the name alone is enough in this process.
    assert question_source("birds") is question_source(f"{TOY}:birds")


def test_a_configuration_accepts_the_kind_of_a_users_module(birds: Path) -> None:
    source = SourceConfig(kind=f"{TOY}:bird_list", annotations=str(birds), images=str(birds.parent))
    check(PrecomputeConfig(source=source, tagger=TaggerConfig(path="ram")))
    with pytest.raises(UserError, match=f"no image source '{TOY}:birds'"):
        check(PrecomputeConfig(source=SourceConfig(kind=f"{TOY}:birds", images="x"), tagger=TaggerConfig(path="ram")))


@pytest.mark.usefixtures("ray_cluster")
def test_rays_workers_import_the_users_module(birds: Path, tmp_path: Path) -> None:
    rows = [
        {"image_id": f"birds/{name}.jpg", "uri": f"{tmp_path}/{name}.jpg", "source": "birds", "tags": []}
        for name in ("sparrow", "heron")
    ]
    tagged = tmp_path / "tagged"
    tagged.mkdir()
    pq.write_table(to_table(rows, TAGGED), tagged / "0.parquet")
    birds.write_text("\n".join(birds.read_text().splitlines()[:2]))
    entry = InstructionSet("birds", f"{TOY}:birds", annotations=str(birds))
    result = instructions(InstructionsConfig(tagged=str(tagged), sets=[entry], out=str(tmp_path / "out")))
    assert result.summary["rows"] == 2


def test_the_fields_of_kinds_name_every_format_of_the_project() -> None:
    helps = {action.dest: str(action.help) for action in make_parser("precompute", PrecomputeConfig)._actions}
    for kind in IMAGE_SOURCES:
        assert re.search(rf"\b{kind}\b", helps["source.kind"]), kind
    described = inspect.getsource(InstructionSet)
    for kind in QUESTION_SOURCES:
        assert re.search(rf"\b{kind}\b", described), kind


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'vqa' is already registered"):
        register_question_source("vqa", QUESTION_SOURCES["vqa"])
    with pytest.raises(ValueError, match="'folder' is already registered"):
        register_image_source("folder", image_source("folder"))
    with pytest.raises(ValueError, match="without a colon"):
        register_image_source("a:b", ImageSource(lambda annotations, images, split: iter(())))
    with pytest.raises(ValueError, match="without a colon"):
        register_question_source("", QuestionSource(lambda files: iter(()), ("vqa",)))


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(UserError, match=r"kind 'no_such_module:birds': the module no_such_module cannot be imported"):
        question_source("no_such_module:birds")


def test_an_unknown_kind_names_the_registered_ones() -> None:
    with pytest.raises(UserError, match="coco_captions"):
        read_images("coco", None, "images")
    with pytest.raises(UserError, match="refcoco"):
        question_source("refcoco+")
