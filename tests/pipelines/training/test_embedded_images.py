"""Images that precompute embedded are read from the table: by training, evaluation, prediction, gallery and card."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models.lion import LionForConditionalGeneration
from pipelines.comparison.examples import _picture
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_parquet
from pipelines.core.resources import LaunchConfig
from pipelines.core.tables import IMAGE_BYTES, INSTRUCTIONS, TAGGED, to_table
from pipelines.evaluation.config import EvaluateConfig, InferenceConfig
from pipelines.evaluation.run import evaluate
from pipelines.inference.pictures import find_table
from pipelines.inference.predictor import LocalInference
from pipelines.inference.run import PredictConfig, predict
from pipelines.instructions.card import _thumbnail
from pipelines.instructions.images import IndexImages
from pipelines.instructions.images import shard_set as index_shards
from pipelines.precompute import precompute
from pipelines.sources import embedded
from pipelines.sources.embedded import embedded_digests, find_embedded, open_embedded
from pipelines.sources.images import load_image
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainStageConfig
from pipelines.training.runs import train_stage
from tests.pipelines.precompute.worlds import folder_config, rows_of

COUNT = 10


class Tables(NamedTuple):
    """Tables of the same images with embedded bytes (and deleted files) and without, and questions about them."""

    embedded: str
    plain: str
    instructions: str
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def tables(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    root = tmp_path_factory.mktemp("embedded")
    result = precompute(folder_config(root, COUNT, embed_bytes=True))
    rows = rows_of(result.path)
    samples = [
        {"sample_id": f"{task}-{row['image_id']}", "image_id": row["image_id"], "task": task, "level": "image",
         "instruction": question, "answers": answers}
        for row in rows
        for task, question, answers in (("caption", "Describe the image.", ["a red circle", "there is a square"]),
                                        ("pope", "Is there a square?", ["yes"]))
    ]  # fmt: skip
    for name, listed, schema in (("plain", rows, TAGGED), ("instructions", samples, INSTRUCTIONS)):
        (root / name).mkdir()
        kept = [{key: row[key] for key in schema.names if key in row} for row in listed]
        pq.write_table(to_table(kept, schema), root / name / "part-0.parquet")
    files = {row["image_id"]: Path(row["uri"]).read_bytes() for row in rows}
    return Tables(result.path, str(root / "plain"), str(root / "instructions"), files)


@pytest.fixture
def gone(tables: Tables) -> Any:
    """Delete the image files while a test runs."""
    places = {row["uri"]: Path(row["uri"]).read_bytes() for row in rows_of(tables.embedded)}
    for uri in places:
        Path(uri).unlink()
    yield None
    for uri, content in places.items():
        Path(uri).write_bytes(content)


def train(tables: Tables, tagged: str, lion: str, out: Path) -> str:
    config = TrainStageConfig(
        tables.instructions, tagged, [lion], loop=LoopConfig(steps=3, batch_size=4, log_every=1),
        optimizer=OptimizerConfig(1e-3), launch=LaunchConfig("local", cpus_per_worker=1), out=str(out),
    )  # fmt: skip
    return f"{train_stage(config).path}/model"


def ask(tables: Tables, tagged: str, model: str, out: Path, launcher: Any = "local") -> list[dict[str, Any]]:
    inference = InferenceConfig(beams=1, launcher=launcher, shard_rows=6, cpus=1, actors=1)
    config = EvaluateConfig(model=model, data=tables.instructions, tagged=tagged, out=str(out), inference=inference)
    result = evaluate(config)
    assert "unreadable_images" not in result.summary
    assert not Path(result.path, "input_images").exists()
    return read_parquet(result.path, "predictions").drop_columns(["model_version"]).to_pylist()


def predicted(image: str, model: str, out: Path) -> list[tuple[str, str]]:
    config = PredictConfig(
        model, image, tags="red: 0.9", out=str(out), format="json", inference=LocalInference(beams=1)
    )
    return [(row["image"], row["answer"]) for row in map(json.loads, predict(config).lines)]


@pytest.fixture(scope="module")
def from_files(tables: Tables, lion: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """A model trained on the files, and its answers about them."""
    out = tmp_path_factory.mktemp("files")
    model = train(tables, tables.plain, lion, out)
    return model, ask(tables, tables.plain, model, out)


def test_training_on_embedded_bytes_is_training_on_the_files(
    tables: Tables, from_files: tuple[str, list[dict[str, Any]]], gone: None, lion: str, tmp_path: Path
) -> None:
    ours = LionForConditionalGeneration.from_pretrained(train(tables, tables.embedded, lion, tmp_path)).state_dict()
    theirs = LionForConditionalGeneration.from_pretrained(from_files[0]).state_dict()
    start = LionForConditionalGeneration.from_pretrained(lion).state_dict()
    assert any(not torch.equal(theirs[name], start[name]) for name in start)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("launcher", ["local", "ray"])
def test_evaluation_of_embedded_bytes_is_evaluation_of_the_files(
    tables: Tables, from_files: tuple[str, list[dict[str, Any]]], gone: None, tmp_path: Path, launcher: str
) -> None:
    assert ask(tables, tables.embedded, from_files[0], tmp_path, launcher) == from_files[1]


def test_prediction_takes_a_tagged_table(
    tables: Tables, from_files: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    by_file = predicted(tables.plain, from_files[0], tmp_path)
    assert len(by_file) == COUNT
    uris = [row["uri"] for row in rows_of(tables.embedded)]
    contents = {uri: Path(uri).read_bytes() for uri in uris}
    for uri in uris:
        Path(uri).unlink()
    try:
        assert predicted(tables.embedded, from_files[0], tmp_path) == by_file
        (file,) = (f for f in Path(tables.embedded, "tagged").iterdir() if f.name.endswith("00000000.parquet"))
        assert predicted(str(file), from_files[0], tmp_path) == by_file[: len(pq.read_table(file))]
    finally:
        for uri, content in contents.items():
            Path(uri).write_bytes(content)


def test_a_folder_of_other_parquet_is_no_tagged_table(tables: Tables, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="is not a tagged table: it lacks the columns"):
        find_table(str(tmp_path))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert find_table(str(tmp_path)) is None  # a folder of images, whatever lies beside them


def test_every_image_is_found_under_its_id(tables: Tables) -> None:
    opened = open_embedded(tables.embedded)
    assert opened is not None
    ids = pa.chunked_array([[*reversed(tables.files), "another"]])
    contents = [opened.content(int(row)) for row in opened.rows(ids)]
    assert contents == [*reversed(tables.files.values()), None]
    chosen = list(tables.files)[3:5]
    assert find_embedded(tables.embedded, {*chosen, "another"}) == {name: tables.files[name] for name in chosen}
    assert open_embedded(tables.plain) is None
    assert find_embedded(tables.plain, set(chosen)) == {}


def test_a_row_without_bytes_and_a_table_of_both_kinds_fall_back_to_the_file(tmp_path: Path) -> None:
    content = (tmp_path / "a.png", tmp_path / "b.png")
    for path, color in zip(content, ("red", "blue"), strict=True):
        Image.new("RGB", (4, 4), color).save(path)
    pq.write_table(pa.table({"image_id": ["a"], "uri": [str(content[0])]}), tmp_path / "1.parquet")
    both = pa.table({"image_id": ["a", "b"], IMAGE_BYTES.name: pa.array([None, b"bytes"], pa.binary())})
    pq.write_table(both, tmp_path / "2.parquet")
    opened = open_embedded(str(tmp_path))
    assert opened is not None
    assert opened.rows(pa.chunked_array([["a", "b"]])).tolist() == [-1, 0]
    assert opened.content(0) == b"bytes"
    assert np.asarray(load_image(str(content[0]), opened.content(-1)))[0, 0].tolist() == [255, 0, 0]


def test_the_copy_is_made_once_and_a_few_images_at_a_time(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sizes: list[int] = []
    iterate = pq.ParquetFile.iter_batches

    def recorded(self: pq.ParquetFile, *args: Any, **kwargs: Any) -> Any:
        for batch in iterate(self, *args, **kwargs):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(embedded, "_BATCH_ROWS", 2)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    open_embedded(tables.embedded)
    assert max(sizes) == 2
    assert sum(sizes) == COUNT
    opened = open_embedded(tables.embedded)
    assert sum(sizes) == COUNT
    assert opened is not None
    assert isinstance(opened._bytes, np.memmap)


def test_gallery_card_and_the_comparison_of_content_read_embedded_bytes(
    tables: Tables, gone: None, tmp_path: Path
) -> None:
    name, content = next(iter(tables.files.items()))
    row: dict[str, Any] = {"uri": "/gone.jpg", "instruction": "", "answers": [], "box": None}
    assert _picture("/gone.jpg", content).startswith("data:image/jpeg")
    assert _thumbnail(row, content).startswith("data:image/jpeg")
    files = sorted(map(str, Path(tables.embedded, "tagged").iterdir()))
    assert embedded_digests(files[0])[name] == hashlib.sha256(content).digest()
    (proof,) = IndexImages(str(tmp_path), files, True, "")(pa.table({"shard": [0]}))["proof"].to_pylist()
    assert json.loads(proof)["unreadable"] == 0
    index = pq.read_table(index_shards(str(tmp_path)).result_file(0))
    assert index["digest"].to_pylist()[0] == hashlib.sha256(content).digest()


def test_a_full_disk_is_a_sentence(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pipelines.sources.embedded.os.replace", full)
    with pytest.raises(UserError, match="set TMPDIR to a folder on a larger disk"):
        open_embedded(tables.embedded)
    assert not list(tmp_path.rglob("*.partial"))
    assert storage.exists(tables.embedded)
