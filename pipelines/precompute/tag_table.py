"""The tagger that looks up tags which exist already, in a Parquet table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tags import ImageTags, tags_from_rows
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.tables import TAG, require_unicode
from pipelines.core.tag_rules import read_thresholds, thresholds_of
from pipelines.precompute.config import Precision
from pipelines.precompute.taggers import Tagger


class TableTagger(Tagger):
    """Tags from a Parquet table with the columns `image_id` (strings or integers) and `tags`.

    `tags` is a list of structs (tag, score), or a list of strings with a second column `tag_scores` (or `scores`), a
    list of numbers. The thresholds are those of `tagger.thresholds`, or of the `_tag_thresholds.json` next to the
    table's files. An image that is not in the table gets an empty list and counts as `without_tags`.

    The driver sorts the table by id. The actors of a node share one copy of it, in Ray's object store.
    """

    reads_thresholds = True

    def prepare(self) -> None:
        import ray

        path = self.config.thresholds
        self.thresholds = read_thresholds(path) if path else thresholds_of(self.config.path)
        # In a list: Ray replaces a reference that is a direct argument by the table itself, a copy for each actor.
        self._shared = [ray.put(read_tag_table(self.config.path))]

    def setup(self, device: str, threads: int, precision: Precision) -> None:
        import ray

        self.table: pa.Table = ray.get(self._shared[0])

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        rows = [find_sorted(self.table["image_id"], image_id) for image_id in image_ids]
        return [[] if row is None else self._tags_at(row) for row in rows]

    def _tags_at(self, row: int) -> ImageTags:
        tags = tags_from_rows(self.table["tags"][row].as_py())
        return sorted((item for item in tags if item[1] > self.config.floor), key=lambda item: -item[1])


def read_tag_table(uri: str) -> pa.Table:
    """Return a tag table with `image_id` (string, ascending, unique) and `tags` (list of `tables.TAG`), in one chunk.

    Args:
        uri: a Parquet file or a folder of them.

    Raises:
        UserError: the table cannot be read, lacks a column, has an id twice, text that is not UTF-8, or scores outside
            [0, 1].
    """
    import pyarrow.dataset as ds

    filesystem, path = storage.resolve(uri)
    try:
        table = ds.dataset(path, filesystem=filesystem, format="parquet").to_table()
        ids = table["image_id"].cast(pa.string())
        tags = table["tags"]
        if not pa.types.is_struct(tags.type.value_type):
            tags = _joined(tags, table["tag_scores" if "tag_scores" in table.column_names else "scores"])
        result = pa.table({"image_id": ids, "tags": tags.cast(pa.list_(TAG))}).combine_chunks()
    except (FileNotFoundError, pa.ArrowException, KeyError, AttributeError) as error:
        raise UserError(
            f"{uri} is no tag table ({error}); give Parquet with image_id and tags (list of tag, score), "
            "or with image_id, tags (list of string) and tag_scores (list of number)."
        ) from error
    require_unicode(result, uri)
    result = result.sort_by("image_id").combine_chunks()
    _check_tag_table(result, uri)
    return result


def _joined(tags: pa.ChunkedArray, scores: pa.ChunkedArray) -> pa.Array:
    """Return one list of structs (tag, score) per image, from a list of tags and a list of scores."""
    names, numbers = pa.concat_arrays(tags.chunks), pa.concat_arrays(scores.chunks)
    if not pc.list_value_length(names).equals(pc.list_value_length(numbers).cast(pc.list_value_length(names).type)):
        raise pa.ArrowInvalid("tags and scores of an image differ in number")
    items = pa.StructArray.from_arrays(
        [names.flatten().cast(pa.string()), numbers.flatten().cast(pa.float32())], fields=list(TAG)
    )
    lengths = pc.fill_null(pc.list_value_length(names), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)


def _check_tag_table(table: pa.Table, uri: str) -> None:
    ids = table["image_id"]
    if ids.null_count:
        raise UserError(f"{uri} has {ids.null_count} rows without image_id; delete them.")
    if len(ids) > 1 and pc.any(repeated := pc.equal(ids[1:], ids[:-1])).as_py():
        twice = ids[pc.index(repeated, True).as_py()].as_py()
        raise UserError(f"{uri} has the image {twice!r} more than once; keep one row per image.")
    scores = pc.struct_field(pc.list_flatten(table["tags"]), "score")
    if len(scores) and not pc.all(pc.and_(pc.greater_equal(scores, 0.0), pc.less_equal(scores, 1.0))).as_py():
        raise UserError(f"{uri} has scores that are not between 0 and 1; give confidences.")


def find_sorted(ids: pa.ChunkedArray, image_id: str) -> int | None:
    """Return the row of an id in an ascending column, or None, in logarithmic time.

    A dict of the ids would cost each actor a Python string per image. Arrow sorts strings by their UTF-8 bytes and
    Python by code points, which is the same order.
    """
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if ids[middle].as_py() < image_id:
            low = middle + 1
        else:
            high = middle
    return low if low < len(ids) and ids[low].as_py() == image_id else None
