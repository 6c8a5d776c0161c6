"""Tables: every boundary casts to its schema and says what does not fit."""

import pyarrow as pa
import pytest

from pipelines.tables import IMAGES, INSTRUCTIONS, TAGGED, to_table


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
    with pytest.raises(ValueError, match="colour"):
        to_table([{"image_id": "1", "uri": "a", "source": "s", "colour": "red"}], IMAGES)


def test_a_null_where_none_may_be_is_named() -> None:
    with pytest.raises((ValueError, pa.ArrowInvalid), match="uri"):
        to_table([{"image_id": "1", "uri": None, "source": "s"}], IMAGES)
