"""The triplets that the tag encoder is trained on: an image's tags, its captions, captions of another image."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.tag_encoder import TagEncoderProcessor
from models.tags import ImageTags, tags_from_rows
from pipelines.core.errors import UserError
from pipelines.core.local_tables import open_table
from pipelines.core.tables import TAGGED
from pipelines.training.config import TrainTagEncoderConfig
from pipelines.training.data import Batch, PerThread, generator
from pipelines.training.order import Draw, held_out

log = logging.getLogger("lion.training")
COLUMNS = ("image_id", "tags", "caption", "captions")
# Number of draws for a caption of another image that differs from the image's captions, before the data is refused.
_TRIES = 64


@dataclasses.dataclass(frozen=True)
class Triplet:
    """One sample: an image's tags, its captions, and the captions of another image.

    Both images have a single caption, or both have all their captions: the encoder could tell a mean of several vectors
    from a single vector without reading the captions.

    Attributes:
        image_id: id of the image.
        tags: its tags with confidences.
        positives: its captions.
        negatives: captions of another image.
    """

    image_id: str
    tags: ImageTags
    positives: list[str]
    negatives: list[str]


class TagEncoderData:
    """Triplets from the `tagged` table.

    Images without tags above the threshold stay, because the encoder needs a vector for "no tags", too. Images without
    a caption are left out.

    Args:
        table: folder of the `tagged` table.
        processor: tokenizes tags and captions.
        settings: the choice of positives, the held-out part, and the seeds.

    Raises:
        UserError: fewer than four images have a caption, or all captions are the same.
    """

    def __init__(self, table: str, processor: TagEncoderProcessor, settings: TrainTagEncoderConfig) -> None:
        self._rows = open_table(table, TAGGED, COLUMNS)
        self._processor, self._settings = PerThread(processor), settings
        captions = self._rows.column("caption")
        usable = np.flatnonzero(captions.is_valid().to_numpy())
        if len(usable) < 4:
            raise UserError(
                f"{table} has {len(usable)} images with a caption; triplets need at least 4: add images with captions."
            )
        if len(usable) < len(captions):
            log.warning(
                "%d of %d images have no caption; they are left out", len(captions) - len(usable), len(captions)
            )
        ids = self._rows.column("image_id").take(usable)
        out = held_out(ids, settings.validation_fraction, settings.held_out_seed)
        self._parts = (usable[~out], usable[out])
        self.pools = (len(self._parts[0]),)
        self.ratios = None
        self.validation = [Draw(1, index, 0) for index in range(len(self._parts[1]))]

    def load(self, draw: Draw) -> Triplet:
        """Return the triplet of an image. Each epoch draws another negative."""
        part = self._parts[draw.pool]
        row = self._row(int(part[draw.index]))
        own = {row["caption"], *(row["captions"] or ())}
        # Held-out images have the same negatives in trainings of all seeds, so that their losses can be compared.
        seed = self._settings.held_out_seed if draw.pool else self._settings.loop.seed
        rng = generator(seed, draw.pool, draw.epoch, draw.index)
        tags = tags_from_rows(row["tags"])
        return Triplet(row["image_id"], tags, self._texts(row), self._negatives(part, draw.index, own, rng))

    def _texts(self, row: dict[str, Any]) -> list[str]:
        """Return the captions that represent an image: one, or all of them."""
        if self._settings.positive == "centroid":
            return [row["caption"]]
        return sorted({row["caption"], *(row["captions"] or ())})

    def _row(self, number: int) -> dict[str, Any]:
        return self._rows.slice(number, 1).to_pylist()[0]

    def _negatives(self, part: np.ndarray, index: int, own: set[str], rng: np.random.Generator) -> list[str]:
        """Return the captions of another image of the same part that differ from `own`, this image's captions."""
        if len(part) < 2:  # a single held-out image takes its negative from the training images
            part, index = self._parts[0], -1
        for _ in range(_TRIES):
            other = int(rng.integers(len(part)))
            if other == index:
                continue
            texts = self._texts(self._row(int(part[other])))
            if own.isdisjoint(texts):
                return texts
        raise UserError(
            f"None of {_TRIES} other images has captions that differ from {sorted(own)[:2]}: (nearly) all captions of "
            "the table are the same; use a table with different captions."
        )

    def collate(self, samples: Sequence[Triplet]) -> Batch:
        """Return the tokens of anchors, positives and negatives, in this order and padded to one width.

        `owner` has the index of the positive or, after all positives, of the negative to which each caption belongs:
        `forward` averages the vectors of a sample's captions.
        """
        processor = self._processor.get()
        anchors = processor([sample.tags for sample in samples])
        positives = [caption for sample in samples for caption in sample.positives]
        negatives = [caption for sample in samples for caption in sample.negatives]
        captions = processor.captions([*positives, *negatives])
        width = max(anchors.input_ids.shape[1], captions.input_ids.shape[1])
        tensors = {
            name: torch.cat([_pad(first, width), _pad(second, width)])
            for (name, first), second in zip(anchors.as_dict().items(), captions.as_dict().values(), strict=True)
        }
        pad = processor.tokenizer.pad_token_id
        tensors["input_ids"] = tensors["input_ids"].masked_fill(tensors["attention_mask"] == 0, pad)
        texts = [*(sample.positives for sample in samples), *(sample.negatives for sample in samples)]
        tensors["owner"] = torch.tensor([index for index, captions in enumerate(texts) for _ in captions])
        ids = tuple(sample.image_id for sample in samples)
        return Batch(tensors, float(len(samples)), ids, int(tensors["attention_mask"].sum()))


def _pad(tensor: Tensor, width: int) -> Tensor:
    return nn.functional.pad(tensor, (0, width - tensor.shape[1]))
