"""Tables: rows are cast to the schema, and errors name the column and row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.tables import IMAGES, INSTRUCTIONS, TAGGED, to_table
from pipelines.precompute.tag_table import read_tag_table
from pipelines.scoring.predictions import load_predictions


def test_missing_columns_are_null_and_nested_types_are_kept() -> None:
    row = {"image_id": "1", "uri": "a.jpg", "source": "coco", "tags": [{"tag": "dog", "score": 0.98}]}
    table = to_table([row], TAGGED)
    assert table.schema == TAGGED
    assert table.column("tags").to_pylist() == [[{"tag": "dog", "score": pytest.approx(0.98)}]]
    assert table.column("caption").null_count == 1


def test_tagged_begins_with_the_columns_of_images() -> None:
    assert TAGGED.names[: len(IMAGES.names)] == IMAGES.names


def test_no_rows_keep_the_schema() -> None:
    assert to_table([], INSTRUCTIONS).schema == INSTRUCTIONS


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ValueError, match="color"):
        to_table([{"image_id": "1", "uri": "a", "source": "s", "color": "red"}], IMAGES)


def test_a_null_in_a_required_column_is_named() -> None:
    with pytest.raises((ValueError, pa.ArrowInvalid), match="uri"):
        to_table([{"image_id": "1", "uri": None, "source": "s"}], IMAGES)


@pytest.mark.parametrize("reader", ["predictions", "tags"])
def test_a_parquet_file_with_invalid_text_is_refused_with_its_row(tmp_path: Path, reader: str) -> None:
    good = pa.array([b"a", b"caf\xe9", b"c"])
    texts = pa.Array.from_buffers(pa.string(), len(good), good.buffers())  # as writers do that do not validate
    ids = pa.array(["1", "2", "3"])
    path = str(tmp_path / "table.parquet")
    if reader == "predictions":
        pq.write_table(pa.table({"sample_id": ids, "prediction": texts}), path)
        with pytest.raises(UserError, match="row 1 of column 'prediction'"):
            load_predictions(path, "vqa")
    else:
        tags = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), texts)
        scores = pa.array([[0.9], [0.9], [0.9]], pa.list_(pa.float32()))
        pq.write_table(pa.table({"image_id": ids, "tags": tags, "scores": scores}), path)
        with pytest.raises(UserError, match="row 1 of column 'tags'"):
            read_tag_table(path)
