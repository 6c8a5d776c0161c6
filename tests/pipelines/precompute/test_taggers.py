"""The tagger RAM gives the tags of RAM's processor and model; a table gives its tags, in each of its forms."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.precompute import TaggerConfig
from pipelines.precompute.tag_table import TableTagger, find_sorted, read_tag_table
from pipelines.precompute.taggers import make_tagger
from tests.pipelines.precompute.worlds import save_tiny_ram, write_tags

TAGS = {"b": [("dog", 0.9), ("cat", 0.5)], "a": [("ball", 0.25)], "c": []}


@pytest.fixture(scope="module")
def ram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_ram(tmp_path_factory.mktemp("ram"))


def test_ram_tags_as_its_processor_and_model_do(ram: Path) -> None:
    from models.ram import RamForImageTagging, RamProcessor

    tagger = make_tagger(TaggerConfig(path=str(ram), batch_size=2, floor=0.05))
    tagger.prepare()
    tagger.setup("cpu", 1, "fp32")
    assert tagger.image_size is not None
    side = (tagger.image_size, tagger.image_size)
    images = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (*side, 3), dtype=np.uint8)) for n in range(5)]
    result = tagger.tag([""] * 5, np.stack([np.asarray(image) for image in images]))
    processor = RamProcessor.from_pretrained(ram)
    expected = processor.tags(RamForImageTagging.from_pretrained(ram).confidences(**processor(images)), floor=0.05)
    assert [[tag for tag, _ in tags] for tags in result] == [[tag for tag, _ in tags] for tags in expected]
    np.testing.assert_allclose([s for t in result for _, s in t], [s for t in expected for _, s in t], atol=1e-5)


def test_ram_brings_its_thresholds_in_the_order_of_its_list(ram: Path) -> None:
    from models.ram import RamProcessor

    processor = RamProcessor.from_pretrained(ram)
    tagger = make_tagger(TaggerConfig(path=str(ram)))
    tagger.prepare()
    assert tagger.thresholds is not None
    assert list(tagger.thresholds.items()) == list(zip(processor.tag_list, processor.thresholds, strict=True))


def test_bf16_stays_near_fp32(ram: Path) -> None:
    scores = []
    for precision in ("fp32", "bf16"):
        tagger = make_tagger(TaggerConfig(path=str(ram), floor=0.0))
        tagger.prepare()
        tagger.setup("cpu", 1, precision)
        pixels = np.full((1, tagger.image_size or 0, tagger.image_size or 0, 3), 90, np.uint8)
        scores.append([score for _, score in sorted(tagger.tag(["x"], pixels)[0])])
    assert scores[0] != scores[1]
    np.testing.assert_allclose(scores[0], scores[1], atol=0.02)


def test_nan_stops_the_run_and_does_not_pass_for_an_image_without_tags(ram: Path) -> None:
    import torch

    tagger: Any = make_tagger(TaggerConfig(path=str(ram)))
    tagger.prepare()
    tagger.setup("cpu", 1, "fp32")
    torch.nn.init.constant_(tagger.model.fc.bias, float("nan"))
    with pytest.raises(RuntimeError, match="NaN"):
        tagger.tag(["x"], np.zeros((1, tagger.image_size, tagger.image_size, 3), np.uint8))


def test_a_folder_that_is_no_ram_is_refused(tmp_path: Path, ram: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        make_tagger(TaggerConfig(path=str(tmp_path))).prepare()
    (tmp_path / "config.json").write_text((ram / "config.json").read_text())
    with pytest.raises(UserError, match="not a whole RAM"):
        make_tagger(TaggerConfig(path=str(tmp_path))).prepare()
    with pytest.raises(UserError, match="ram, table"):
        make_tagger(TaggerConfig(kind="oracle", path="x"))


def test_tables_are_sorted_by_id_and_looked_up(tmp_path: Path) -> None:
    table = read_tag_table(str(write_tags(tmp_path / "tags.parquet", TAGS)))
    assert table["image_id"].to_pylist() == ["a", "b", "c"]
    assert [find_sorted(table["image_id"], key) for key in ("a", "b", "c", "", "aa", "d")] == [
        0,
        1,
        2,
        None,
        None,
        None,
    ]
    tagger = TableTagger(TaggerConfig(kind="table", floor=0.5))
    tagger.table = table
    # Above the floor, not at it; an image that is not in the table has no tags.
    result = tagger.tag(["b", "zebra", "a", "c"], None)
    assert result == [
        [("dog", pytest.approx(0.9))],
        [],
        [],
        [],
    ]


def test_a_folder_of_integer_ids_with_parallel_lists(tmp_path: Path) -> None:
    for number in (3, 1):
        content = {"image_id": [number], "tags": [["x", "y"]], "tag_scores": [[0.5, 0.75]]}
        pq.write_table(pa.table(content), tmp_path / f"{number}.parquet")
    table = read_tag_table(str(tmp_path))
    assert table["image_id"].to_pylist() == ["1", "3"]
    assert table["tags"].to_pylist()[0] == [{"tag": "x", "score": 0.5}, {"tag": "y", "score": 0.75}]


@pytest.mark.parametrize(
    "content, message",
    [
        ({"image_id": ["a"]}, "no tag table"),
        ({"image_id": ["a"], "tags": [["x"]], "scores": [[0.5, 0.1]]}, "differ in number"),
        ({"image_id": ["a"], "tags": [["x"]], "scores": [[1.5]]}, "between 0 and 1"),
        ({"image_id": ["a"], "tags": [["x"]], "scores": [[float("nan")]]}, "between 0 and 1"),
        ({"image_id": ["a", "a"], "tags": [["x"], ["x"]], "scores": [[0.5], [0.5]]}, "'a' more than once"),
        ({"image_id": [None], "tags": [["x"]], "scores": [[0.5]]}, "without image_id"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(content), tmp_path / "tags.parquet")
    with pytest.raises(UserError, match=message):
        read_tag_table(str(tmp_path / "tags.parquet"))


def test_a_text_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "tags.parquet").write_text("dog,0.9")
    with pytest.raises(UserError, match="no tag table"):
        read_tag_table(str(tmp_path / "tags.parquet"))


def test_the_real_detectors_table(shared: Path) -> None:
    table = read_tag_table(str(shared / "data/coco/tags_detector.parquet"))
    assert table.num_rows == 138
    position = find_sorted(table["image_id"], "309")
    assert position is not None
    assert [tag["tag"] for tag in table["tags"][position].as_py()] == ["dog", "teddy bear", "bird", "sheep"]
