"""Taggers: who says what is on an image, and how sure it is. `TAGGERS` names them; one line there adds another.

A tagger is made in the driver, where `prepare` checks its input once and cheaply; it then travels to every actor, whose
`setup` brings weights into memory once. `tag` is called there with the images of a shard.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tags import ImageTags, tags_from_rows
from pipelines.core import storage
from pipelines.core.copies import local_copy
from pipelines.core.errors import UserError
from pipelines.core.runtime import worker_threads
from pipelines.core.tables import TAG, require_unicode
from pipelines.core.tag_rules import read_thresholds, thresholds_of
from pipelines.precompute.config import Precision, TaggerConfig

if TYPE_CHECKING:
    import torch

_BATCH_SIZES = {"cuda": 32, "cpu": 4}


class Tagger(ABC):
    """What the pipeline asks of a tagger.

    Attributes:
        image_size: side of the square that images are resized to; None for a tagger that looks at no pixels (images
            are decoded all the same, since training will need them).
        needs_model: whether it computes, and so wants cores or a GPU.
        thresholds: each tag's own threshold in the order of the tagger's list, known after `prepare`; None where the
            tagger has none.
    """

    image_size: int | None = None
    needs_model: bool = False
    thresholds: Mapping[str, float] | None = None

    def __init__(self, config: TaggerConfig) -> None:
        self.config = config

    @abstractmethod
    def prepare(self) -> None:
        """Check and reads, in the driver, what all actors share.

        Raises:
            UserError: the tagger's input is not what it should be.
        """

    def setup(self, device: str, threads: int, precision: Precision) -> None:  # noqa: B027  # optional, not abstract
        """Bring the model into an actor's memory.

        Args:
            device: `cpu` or `cuda`.
            threads: CPU threads of the model.
            precision: never `auto`.
        """

    @abstractmethod
    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        """Tag above the floor with their confidences, by falling confidence; empty where there are none.

        Args:
            image_ids: of B images.
            pixels: (B, image_size, image_size, 3) uint8 RGB; None where `image_size` is None.
        """


class RamTagger(Tagger):
    """Recognize Anything (`models.ram`) from a `from_pretrained` folder."""

    needs_model = True

    def prepare(self) -> None:
        folder = local_copy(self.config.path)
        if not os.path.isfile(os.path.join(folder, "config.json")):
            raise UserError(f"{folder} has no config.json, so it is no RAM; `jobs.convert --kind ram` makes one.")
        from models.ram import RamConfig, RamProcessor

        try:
            config = RamConfig.from_pretrained(folder)
            processor = RamProcessor.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder} is not a whole RAM folder: {error}") from error
        if len(processor.tag_list) != config.n_tags:
            raise UserError(
                f"{folder} has {len(processor.tag_list)} tags in its list but {config.n_tags} in its head; "
                "the two do not belong together."
            )
        self.image_size = processor.image_size
        self.thresholds = processor.thresholds_by_tag

    def setup(self, device: str, threads: int, precision: Precision) -> None:
        import torch
        from transformers.utils.logging import disable_progress_bar

        from models.alignment import align_weights
        from models.ram import RamForImageTagging, RamProcessor

        disable_progress_bar()  # an actor's bar would run through everybody's log
        torch.set_num_threads(worker_threads(threads))
        folder = local_copy(self.config.path)
        self.processor = RamProcessor.from_pretrained(folder)
        self.model = RamForImageTagging.from_pretrained(folder)
        self.model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the types of torch's `to`
        align_weights(self.model)
        self.device, self.precision = device, precision
        mean, std = (torch.tensor(values) for values in (self.processor.image_mean, self.processor.image_std))
        # For a whole row of pixels (side * 3,): broadcast over three channels, the loops would be three long.
        self.scale, self.shift = (
            values.repeat(self.processor.image_size).to(device) for values in (1 / (255 * std), -mean / std)
        )

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        import torch

        assert pixels is not None  # image_size is set
        tags: list[ImageTags] = []
        size = self.config.batch_size or _BATCH_SIZES[self.device]
        for start in range(0, len(pixels), size):
            with self._autocast():
                confidences = self.model.confidences(self.scaled(pixels[start : start + size]))
            if not bool(torch.isfinite(confidences).all()):
                raise RuntimeError(
                    f"The tagger {self.config.path} gives NaN in {self.precision}; its weights are damaged, or it "
                    "needs --tagger.precision fp32."
                )
            tags += self.processor.tags(confidences, floor=self.config.floor)
        return tags

    def scaled(self, pixels: np.ndarray) -> "torch.Tensor":
        """(B, 3, side, side) float32 as the model sees them, of (B, side, side, 3) uint8 RGB."""
        import torch

        batch = torch.from_numpy(pixels).to(self.device)
        rows = batch.flatten(2).float().mul_(self.scale).add_(self.shift)
        return rows.view(batch.shape).permute(0, 3, 1, 2)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)


class TableTagger(Tagger):
    """Tags that are there already: Parquet with `image_id` and `tags`.

    `tags` is a list of structs (tag, score), or a list of strings beside a list of numbers `tag_scores` (or `scores`).
    Its thresholds are those of `tagger.thresholds`, or of a `_tag_thresholds.json` beside its files. Ids may be strings
    or integers. The table is sorted by id once and shared by all actors of a node through Ray's
    object store. Images that it does not know get an empty list of tags, and are counted as `without_tags`.
    """

    def prepare(self) -> None:
        import ray

        path = self.config.thresholds
        self.thresholds = read_thresholds(path) if path else thresholds_of(self.config.path)
        self._shared = [ray.put(read_tag_table(self.config.path))]  # in a list, so that Ray does not resolve it

    def setup(self, device: str, threads: int, precision: Precision) -> None:
        import ray

        self.table: pa.Table = ray.get(self._shared[0])

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        positions = [find_sorted(self.table["image_id"], image_id) for image_id in image_ids]
        return [[] if at is None else self._tags_at(at) for at in positions]

    def _tags_at(self, position: int) -> ImageTags:
        found = tags_from_rows(self.table["tags"][position].as_py())
        return sorted((item for item in found if item[1] > self.config.floor), key=lambda item: -item[1])


TAGGERS: dict[str, type[Tagger]] = {"ram": RamTagger, "table": TableTagger}


def make_tagger(config: TaggerConfig) -> Tagger:
    """Return the tagger of a configuration.

    Raises:
        UserError: there is none of that kind.
    """
    if config.kind not in TAGGERS:
        raise UserError(f"There is no tagger {config.kind!r}; tagger.kind is one of {', '.join(TAGGERS)}.")
    return TAGGERS[config.kind](config)


def read_tag_table(uri: str) -> pa.Table:
    """Return a tag table with `image_id` (string, ascending, unique) and `tags` (list of `tables.TAG`), in one chunk.

    Raises:
        UserError: it cannot be read, lacks a column, holds an id twice or bytes that are no text, or scores that are no
            confidences.
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
            "or tags (list of string) beside tag_scores (list of number)."
        ) from error
    require_unicode(result, uri)
    result = result.sort_by("image_id").combine_chunks()
    _check_tag_table(result, uri)
    return result


def _joined(tags: pa.ChunkedArray, scores: pa.ChunkedArray) -> pa.Array:
    """Two lists side by side as one list of structs."""
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
        raise UserError(f"{uri} has {ids.null_count} rows without image_id; drop them.")
    if len(ids) > 1 and pc.any(repeated := pc.equal(ids[1:], ids[:-1])).as_py():
        twice = ids[pc.index(repeated, True).as_py()].as_py()
        raise UserError(f"{uri} holds the image {twice!r} more than once; keep one row of each image.")
    scores = pc.struct_field(pc.list_flatten(table["tags"]), "score")
    if len(scores) and not pc.all(pc.and_(pc.greater_equal(scores, 0.0), pc.less_equal(scores, 1.0))).as_py():
        raise UserError(f"{uri} has scores that are not between 0 and 1; give confidences.")


def find_sorted(ids: pa.ChunkedArray, image_id: str) -> int | None:
    """Return the row of an id in an ascending column, in logarithmic time and without a Python copy of the column.

    Arrow orders strings by their UTF-8 bytes, Python by code points: the same order.
    """
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if ids[middle].as_py() < image_id:
            low = middle + 1
        else:
            high = middle
    return low if low < len(ids) and ids[low].as_py() == image_id else None
