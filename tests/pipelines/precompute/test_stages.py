"""The stages on plain Arrow tables, without Ray."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.tags import ImageTags
from pipelines.core import storage
from pipelines.core.shards import ShardIndex
from pipelines.core.tables import TAGGED
from pipelines.precompute import TaggerConfig, shards
from pipelines.precompute.stages import Commit, Decode, ReadShard, Tag
from pipelines.precompute.taggers import Tagger
from pipelines.sources.records import ImageRecord
from tests.pipelines.precompute.worlds import digests_of, rows_of, write_pictures

SIDE = 16


class Brightness(Tagger):
    """A tagger whose confidence is the mean of the pixels, so that a tag shows which pixels it is from."""

    image_size = SIDE

    def prepare(self) -> None:
        pass

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        assert pixels is not None
        assert pixels.shape == (len(image_ids), SIDE, SIDE, 3)
        return [[("brightness", float(image.mean() / 255))] for image in pixels]


@pytest.fixture
def world(tmp_path: Path) -> tuple[str, ShardIndex, list[Path]]:
    """Two shards of three and two pictures, of which one is truncated and one missing."""
    pictures = write_pictures(tmp_path / "images", 5)
    pictures[1].write_bytes(pictures[1].read_bytes()[:200])
    pictures[4].unlink()
    records = (ImageRecord(p.name, str(p), None, None, None, "test", ()) for p in pictures)
    return str(tmp_path), shards.cut_source(records, str(tmp_path), 3), pictures


def read(folder: str, shard: int) -> pa.Table:
    return ReadShard(folder)(pa.table({"shard": [shard]}))


def run(folder: str, index: ShardIndex, shard: int, embed_bytes: bool = False) -> dict[str, object]:
    decode = Decode(SIDE, max_pixels=10_000, jpeg_draft=False, embed_bytes=embed_bytes)
    tag = Tag(Brightness(TaggerConfig()), gpus=0.0, threads=1, precision="fp32")
    (proof,) = Commit(folder, index, {"tagger": "brightness"})(tag(decode(read(folder, shard))))["proof"].to_pylist()
    return json.loads(proof)


def test_bad_images_go_to_quarantine_and_the_others_get_their_own_tags(
    world: tuple[str, ShardIndex, list[Path]],
) -> None:
    folder, index, pictures = world
    proofs = [run(folder, index, shard) for shard in range(2)]
    assert [proof["rows"] for proof in proofs] == [2, 1]
    assert [proof["quarantined"] for proof in proofs] == [{"truncated": 1}, {"missing": 1}]
    rows = rows_of(folder)
    assert [row["image_id"] for row in rows] == [pictures[n].name for n in (0, 2, 3)]
    for row in rows:
        resized = Image.open(row["uri"]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        assert row["tags"][0]["score"] == pytest.approx(np.asarray(resized).mean() / 255, abs=1e-6)
        assert (row["width"], row["height"], row["caption"]) == (40, 30, None)
    assert [(row["image_id"], row["stage"], row["reason"]) for row in rows_of(folder, "quarantine")] == [
        (pictures[1].name, "image", "truncated"),
        (pictures[4].name, "image", "missing"),
    ]


def test_results_have_the_schema_of_the_table_and_the_name_of_the_tagger(
    world: tuple[str, ShardIndex, list[Path]],
) -> None:
    folder, index, _ = world
    run(folder, index, 0)
    schema = pq.read_schema(shards.shard_set(folder).result_file(0))
    assert schema.equals(TAGGED)
    assert schema.metadata[b"tagger"] == b"brightness"


def test_a_shard_computed_twice_leaves_the_same_bytes(world: tuple[str, ShardIndex, list[Path]]) -> None:
    folder, index, _ = world
    proofs = [run(folder, index, 0)]
    before = digests_of(folder)
    proofs.append(run(folder, index, 0))
    assert digests_of(folder) == before
    assert proofs[0] == proofs[1]
    assert {file["path"]: file["sha256"] for file in proofs[0]["files"]} == before  # type: ignore[attr-defined]


def test_a_repaired_image_leaves_the_quarantine(world: tuple[str, ShardIndex, list[Path]]) -> None:
    folder, index, pictures = world
    run(folder, index, 0)
    write_pictures(pictures[0].parent, 5)
    assert run(folder, index, 0)["quarantined"] == {}
    assert rows_of(folder, "quarantine") == []


def test_a_kill_while_a_shard_is_repeated_leaves_no_proof_of_the_first_attempt(
    world: tuple[str, ShardIndex, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index, pictures = world
    run(folder, index, 0)
    write_pictures(pictures[0].parent, 5)

    quarantine, delete_file = shards.shard_set(folder).quarantine_file(0), storage.delete_file

    def killed_at_quarantine(uri: str) -> None:
        if uri == quarantine:
            raise KeyboardInterrupt
        delete_file(uri)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # While the old quarantine is deleted, and while the new result is written.
    for name, strike in (("delete_file", killed_at_quarantine), ("write_atomic", killed)):
        with monkeypatch.context() as patch:
            patch.setattr(storage, name, strike)
            with pytest.raises(KeyboardInterrupt):
                run(folder, index, 0)
        assert shards.shard_set(folder).done() == set()
    assert run(folder, index, 0)["quarantined"] == {}
    assert rows_of(folder, "quarantine") == []


def test_embedded_bytes_are_the_files(world: tuple[str, ShardIndex, list[Path]]) -> None:
    folder, index, _ = world
    run(folder, index, 0, embed_bytes=True)
    for row in rows_of(folder):
        assert row["image_bytes"] == Path(row["uri"]).read_bytes()


def test_a_block_that_is_not_one_whole_shard_is_never_written(
    world: tuple[str, ShardIndex, list[Path]],
) -> None:
    folder, index, _ = world
    decode = Decode(None, max_pixels=10_000, jpeg_draft=True, embed_bytes=False)
    commit = Commit(folder, index, {})
    first, second = decode(read(folder, 0)), decode(read(folder, 1))
    with pytest.raises(AssertionError, match="holds the shards"):
        commit(pa.concat_tables([first, second]))
    with pytest.raises(AssertionError, match="arrived with 2 rows"):
        commit(first.slice(1))
    assert rows_of(folder) == []


def test_a_shard_of_bad_images_only_counts_as_done(tmp_path: Path) -> None:
    records = [ImageRecord(str(n), str(tmp_path / f"{n}.jpg"), None, None, None, "test", ()) for n in range(2)]
    index = shards.cut_source(records, str(tmp_path), 2)
    assert run(str(tmp_path), index, 0)["quarantined"] == {"missing": 2}
    assert shards.shard_set(str(tmp_path)).done() == {0}
    assert pq.read_table(shards.shard_set(str(tmp_path)).result_file(0)).num_rows == 0
