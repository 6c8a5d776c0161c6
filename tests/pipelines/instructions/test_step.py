"""Instructions as a step: complete, skipped when done, resumed when stopped, refused when too much is bad."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import DataRefused, UserError
from pipelines.core.steps import read_manifest
from pipelines.core.tables import INSTRUCTIONS, QUARANTINE
from pipelines.instructions import InstructionsConfig, InstructionSet, instructions
from pipelines.instructions.builder import EVALUATION_IMAGE, IMAGE_NOT_TAGGED, OTHER_PICTURE
from pipelines.sources import QuestionFiles, read_questions

pytestmark = pytest.mark.usefixtures("ray_cluster")


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
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path), shard_rows=20)
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
    assert len(list((Path(result.path) / "instructions").iterdir())) > 8, "shards of 20 questions"
    assert {row["level"] for row in rows if row["task"] in ("rec", "reg")} == {"region"}
    assert read(result.path, "quarantine") == []

    again = instructions(config)
    assert (again.skipped, again.summary) == (True, result.summary)


def test_a_shard_that_is_built_again_deletes_its_old_quarantine(world: Path, tagged: Path, tmp_path: Path) -> None:
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path), shard_rows=20)
    result = Path(instructions(config).path)
    (result / "manifest.json").unlink()
    (result / "done/captions-00000000.json").unlink()
    stale = result / "quarantine/captions-00000000.parquet"
    stale.parent.mkdir(exist_ok=True)
    pq.write_table(QUARANTINE.empty_table(), stale)
    instructions(config)
    assert not stale.exists()


def test_every_record_gives_a_row_or_is_set_aside(world: Path, tagged: Path, tmp_path: Path) -> None:
    refs = str(world / "refcoco/refs(sample).p")
    every_split = InstructionSet(name="all", kind="refcoco", annotations=refs)
    result = instructions(InstructionsConfig(tagged=str(tagged), sets=[*sets(world), every_split], out=str(tmp_path)))
    counts = {split: len(list(read_questions("refcoco", QuestionFiles(refs, split=split)))) for split in
              ("train", "val", "test")}  # fmt: skip
    bad = read(result.path, "quarantine")
    assert Counter(row["reason"] for row in bad) == {IMAGE_NOT_TAGGED: counts["test"], EVALUATION_IMAGE: counts["val"]}
    assert result.summary["images_not_tagged"] == counts["test"]
    assert result.summary["evaluation_records_kept_out"] == counts["val"]
    assert result.summary["quarantined"] == 0
    (summary,) = [entry for entry in read_manifest(result.path)["sets"] if entry["name"] == "all"]
    assert summary["rows_in"] == summary["rows"] + sum(summary["reasons"].values()) == sum(counts.values())


def test_a_question_never_gets_a_picture_of_another_collection(world: Path, tagged: Path, tmp_path: Path) -> None:
    document = json.loads((world / "captions_train.json").read_text())
    document["images"][0]["file_name"] = "0013ea2087020901.jpg"  # the picture of nocaps with that number
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(document))
    entry = InstructionSet("nocaps", "coco_captions", str(path), mode="evaluate")
    config = InstructionsConfig(tagged=str(tagged), sets=[entry], out=str(tmp_path), max_bad_fraction=0.1)
    result = instructions(config)
    (bad,) = read(result.path, "quarantine")
    assert (bad["reason"], bad["image_id"]) == (OTHER_PICTURE, str(document["images"][0]["id"]))
    assert "is about 0013ea2087020901.jpg" in bad["detail"]
    assert len(read(result.path)) == 47
    named = dataclasses.replace(config, sets=[dataclasses.replace(entry, collection="nocaps")])
    with pytest.raises(UserError, match=r"gave no row \(image_not_tagged 48"):
        instructions(named)


def test_a_stopped_build_resumes_with_the_same_result(world: Path, tagged: Path, tmp_path: Path) -> None:
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path), shard_rows=20)
    path = Path(instructions(config).path)
    whole = read_manifest(str(path))
    (path / "manifest.json").unlink()
    (path / "done/refcoco-00000001.json").unlink()  # as if killed between a result and its proof
    (path / "instructions/pope-00000002.parquet").unlink()  # as if a file was lost
    (path / "source/captions.json").unlink()  # as if killed while the source was cut
    untouched = (path / "instructions/refcoco-00000000.parquet").stat().st_mtime_ns
    again = instructions(config)
    assert not again.skipped
    assert read_manifest(again.path)["digest"] == whole["digest"]
    assert (path / "instructions/refcoco-00000000.parquet").stat().st_mtime_ns == untouched


def test_evaluation_images_are_kept_out_of_training_by_id_and_by_content(
    world: Path, tagged: Path, tmp_path: Path
) -> None:
    """Two of the training images are in an evaluation set: one under its id, one as a copy in another folder."""
    captions = json.loads((world / "captions_train.json").read_text())
    by_id, copied = captions["images"][:2]
    copies = tmp_path / "other"
    copies.mkdir()
    shutil.copy(world / "images" / copied["file_name"], copies / "000000000001.png")
    questions = [
        {"question_id": number, "image": f"x_{image:012d}.png", "text": "Is it?", "label": "yes"}
        for number, image in enumerate((by_id["id"], 1))
    ]
    (tmp_path / "pope.json").write_text("".join(json.dumps(row) + "\n" for row in questions))
    kept_out = InstructionSet(
        name="bench", kind="pope", annotations=str(tmp_path / "pope.json"), mode="keep_out", images=str(copies)
    )
    config = InstructionsConfig(tagged=str(tagged), sets=[sets(world)[0], kept_out], out=str(tmp_path / "out"))
    manifest = read_manifest(instructions(config).path)
    assert manifest["sets"][0]["evaluation_images"] == {"content": 1, "id": 1}
    assert manifest["evaluation_images_in_training"] == 2
    assert manifest["images"]["evaluation_digests"] == 2
    assert manifest["rows"] == 5 * 46
    allowed = dataclasses.replace(config, evaluation_images="allow")
    manifest = read_manifest(instructions(allowed).path)
    assert (manifest["rows"], manifest["evaluation_images_in_training"]) == (5 * 48, 2)


def test_the_card_has_every_part_and_needs_no_network(world: Path, tagged: Path, shared: Path, tmp_path: Path) -> None:
    tokenizer = str(shared / "tokenizers/flan-t5")
    config = InstructionsConfig(tagged=str(tagged), sets=sets(world), out=str(tmp_path), tokenizer=tokenizer)
    result = instructions(config)
    page = Path(result.summary["card"]).read_text()
    assert page.count("data:image/jpeg;base64,") == 20
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    for name in ("captions", "refcoco", "pope", "Lengths in tokens", "Boxes"):
        assert name in page
    lengths = read_manifest(result.path)["tokens"]
    assert set(lengths) == {"caption", "rec", "reg", "pope"}
    assert 10 < lengths["rec"]["answer"]["mean"] < 40
    assert lengths["pope"]["answer"]["max"] <= 2


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


def test_a_set_without_rows_is_a_user_error(world: Path, tagged: Path, tmp_path: Path) -> None:
    wrong_split = InstructionSet(name="r", kind="aokvqa", annotations=str(world / "aokvqa_val.json"), split="train")
    with pytest.raises(UserError, match=r"'r' gave no row in split 'train'"):
        instructions(InstructionsConfig(tagged=str(tagged), sets=[wrong_split], out=str(tmp_path)))
    with pytest.raises(UserError, match=r"image_not_tagged 6"):
        instructions(InstructionsConfig(tagged=str(tagged), sets=sets(world, "test")[:1], out=str(tmp_path)))


def test_a_file_of_another_kind_in_the_tagged_table_is_a_user_error(world: Path, tagged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tagged"
    shutil.copytree(tagged, folder)
    shutil.copy(world / "tags_detector.parquet", folder / "zz.parquet")
    with pytest.raises(UserError, match=r"zz\.parquet lacks .*'uri'"):
        instructions(InstructionsConfig(tagged=str(folder), sets=sets(world), out=str(tmp_path / "out")))
