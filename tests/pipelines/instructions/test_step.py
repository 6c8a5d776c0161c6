"""Instructions as a step: complete, skipped when done, continued where stopped, refused when too much is bad."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataRefused, UserError
from pipelines.instructions import InstructionsConfig, InstructionSet, instructions
from pipelines.instructions.builder import IMAGE_NOT_TAGGED
from pipelines.sources import QuestionFiles, read_questions
from pipelines.steps import read_manifest
from pipelines.tables import INSTRUCTIONS, QUARANTINE


def sets(world: Path, split: str = "train", **changes: Any) -> list[InstructionSet]:
    return [
        InstructionSet(
            name="captions", kind="coco_captions", annotations=str(world / f"captions_{split}.json"), **changes
        ),
        InstructionSet(
            name="refcoco",
            kind="refcoco",
            annotations=str(world / "refcoco/refs(sample).p"),
            split=split,
            tasks=["rec", "reg"],
            **changes,
        ),
        InstructionSet(name="pope", kind="pope", annotations=str(world / f"pope_random_{split}.json"), **changes),
    ]


def read(path: str, kind: str = "instructions") -> list[dict[str, Any]]:
    files = sorted((Path(path) / kind).glob("*.parquet"))
    tables = [pq.read_table(file) for file in files]
    schema = INSTRUCTIONS if kind == "instructions" else QUARANTINE
    assert all(table.schema.equals(schema) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_every_question_becomes_a_row_once(world: Path, tagged: Path, tmp_path: Path) -> None:
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path), part_rows=100)
    result = instructions(config)
    rows = read(result.path)
    refs = list(read_questions("refcoco", QuestionFiles(str(world / "refcoco/refs(sample).p"), split="train")))
    assert Counter(row["task"] for row in rows) == {
        "caption": 48 * 5,
        "rec": len(refs),
        "reg": len(refs),
        "pope": 48 * 6,
    }
    assert len({row["sample_id"] for row in rows}) == len(rows) == result.summary["rows"]
    assert len(list((Path(result.path) / "instructions").iterdir())) > 8, "parts of 100 rows"
    assert {row["level"] for row in rows if row["task"] in ("rec", "reg")} == {"region"}
    assert read(result.path, "quarantine") == []

    again = instructions(config)
    assert (again.skipped, again.summary) == (True, result.summary)


def test_questions_about_other_images_are_set_aside_and_counted_apart(
    world: Path, tagged: Path, tmp_path: Path
) -> None:
    every_split = InstructionSet(name="all", kind="refcoco", annotations=str(world / "refcoco/refs(sample).p"))
    result = instructions(InstructionsConfig(tagged=str(tagged), sets=[*sets(world), every_split], out=str(tmp_path)))
    bad = read(result.path, "quarantine")
    of_test = list(read_questions("refcoco", QuestionFiles(str(world / "refcoco/refs(sample).p"), split="test")))
    assert {row["reason"] for row in bad} == {IMAGE_NOT_TAGGED}
    assert len(bad) == len(of_test) == result.summary["images_not_tagged"]
    assert result.summary["quarantined"] == 0


def test_a_stopped_build_goes_on_and_ends_the_same(
    world: Path, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path / "a"), part_rows=100)
    whole = read_manifest(instructions(config).path)

    stopped = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path / "b"), part_rows=100)
    built: list[str] = []
    from pipelines.instructions import step

    real = step.build_rows

    def stopping(entry: InstructionSet, *arguments: Any) -> Any:
        built.append(entry.name)
        for number, row in enumerate(real(entry, *arguments)):
            if entry.name == "refcoco" and number == 150 and built.count("refcoco") == 1:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(step, "build_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        instructions(stopped)
    result = instructions(stopped)
    assert built == ["captions", "refcoco", "refcoco", "pope"]
    assert read_manifest(result.path)["digest"] == whole["digest"]


def test_the_same_files_elsewhere_are_the_same_step(world: Path, tagged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path / "out"))
    moved = InstructionsConfig(tagged=str(tagged), sets=sets(copy), out=str(tmp_path / "out"))
    assert not instructions(config).skipped
    assert instructions(moved).skipped
    captions = json.loads((copy / "captions_train.json").read_text())
    captions["annotations"][0]["caption"] = "something else"
    (copy / "captions_train.json").write_text(json.dumps(captions))
    assert not instructions(moved).skipped


def test_too_many_bad_annotations_are_refused_and_kept(world: Path, tagged: Path, tmp_path: Path) -> None:
    document = json.loads((world / "captions_train.json").read_text())
    for annotation in document["annotations"][:24]:
        annotation["caption"] = " "
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(document))
    entry = InstructionSet(name="captions", kind="coco_captions", annotations=str(path))
    settings: dict[str, Any] = {"tagged": str(tagged), "sets": [entry], "out": str(tmp_path / "out")}
    with pytest.raises(DataRefused, match=r"empty_text 24"):
        instructions(InstructionsConfig(**settings))
    result = instructions(InstructionsConfig(**settings, max_bad_fraction=0.2))
    reasons = read_manifest(result.path)["reasons"]
    assert reasons["empty_text"] == 24
    assert len(read(result.path, "quarantine")) == sum(reasons.values())


def test_a_set_without_rows_is_the_users_mistake(world: Path, tagged: Path, tmp_path: Path) -> None:
    wrong_split = InstructionSet(name="r", kind="aokvqa", annotations=str(world / "aokvqa_val.json"), split="train")
    with pytest.raises(UserError, match=r"'r' gave no row in split 'train'"):
        instructions(InstructionsConfig(tagged=str(tagged), sets=[wrong_split], out=str(tmp_path)))
    with pytest.raises(UserError, match=r"image_not_tagged 6"):
        instructions(InstructionsConfig(tagged=str(tagged), sets=sets(world, "test")[:1], out=str(tmp_path)))
