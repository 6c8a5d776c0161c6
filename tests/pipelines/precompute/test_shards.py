"""The source cut into shards, and the shards that count as done."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.precompute import shards
from pipelines.sources.records import BadRecord, ImageRecord
from tests.pipelines.precompute.worlds import rows_of


def image(number: int) -> ImageRecord:
    return ImageRecord(str(number), f"/images/{number}.jpg", 4, 3, "val", "test", (f"caption {number}", "another"))


BAD = BadRecord("7", None, "annotation", "empty_text", "nothing")


def test_every_record_is_in_a_shard_once_and_in_order(tmp_path: Path) -> None:
    records = [image(0), BAD, image(1), image(2), image(3), BAD, image(4)]
    index = shards.cut_source(records, str(tmp_path), shard_rows=2)
    assert (index.rows, index.counts, index.shards, index.bad_records) == (5, {"captions": 10}, 3, {"empty_text": 2})
    assert [index.rows_of(shard) for shard in range(3)] == [2, 2, 1]
    cut = [
        pq.read_table(shards.shard_set(str(tmp_path)).source_file(shard))["image_id"].to_pylist() for shard in range(3)
    ]
    assert cut == [["0", "1"], ["2", "3"], ["4"]]
    assert [row["reason"] for row in rows_of(str(tmp_path), "quarantine")] == ["empty_text"] * 2
    assert shards.shard_set(str(tmp_path)).index() == index


def test_cutting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        shards.cut_source((image(number) for number in range(5)), str(folder), shard_rows=2)
    files = [sorted((tmp_path / name / "source").iterdir()) for name in ("a", "b")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


def test_a_second_cut_leaves_no_bad_records_of_the_first(tmp_path: Path) -> None:
    shards.cut_source([image(0), BAD], str(tmp_path), shard_rows=2)
    (tmp_path / "quarantine/annotations@part-00000001.parquet").write_bytes(b"of an earlier cut")
    others = [
        tmp_path / "quarantine" / name for name in ("part-00000000.parquet", "annotations@part-b-00000000.parquet")
    ]
    for file in others:  # of a shard, and of a set whose name begins with "part"
        file.touch()
    index = shards.cut_source([image(0)], str(tmp_path), shard_rows=2)
    assert index.bad_records == {}
    assert sorted((tmp_path / "quarantine").iterdir()) == sorted(others)


def test_a_second_cut_that_is_killed_leaves_no_index_of_the_first(tmp_path: Path) -> None:
    shards.cut_source([image(0), BAD], str(tmp_path), shard_rows=2)

    def killed() -> Iterator[ImageRecord]:
        yield image(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.cut_source(killed(), str(tmp_path), shard_rows=2)
    assert shards.shard_set(str(tmp_path)).index() is None


def test_a_source_that_was_not_cut_to_the_end_has_no_index(tmp_path: Path) -> None:
    shards.cut_source([image(0)], str(tmp_path), shard_rows=2)
    (tmp_path / "source/part.json").unlink()
    assert shards.shard_set(str(tmp_path)).index() is None


def test_a_shard_is_done_when_its_proof_and_its_result_are_there(tmp_path: Path) -> None:
    shard_set = shards.shard_set(str(tmp_path))
    assert shard_set.done() == set()
    for path in (shard_set.result_file(1), shard_set.result_file(2), shard_set.done_file(2), shard_set.done_file(3),
                 shard_set.quarantine_file(2)):  # fmt: skip
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).touch()
    (tmp_path / "tagged/part-00000004.parquet.0a1b2c3d.partial").touch()
    (tmp_path / "quarantine/annotations@part-00000000.parquet").touch()
    assert shard_set.done() == {2}
    assert shard_set.quarantined() == {2}
