"""Tag noise: the errors of a worse tagger, added to tags when an evaluation reads them.

A dynamic prompt must tolerate the tagger's errors, so evaluations measure the answers under more of them. The stored
tags stay unchanged. The errors of an image depend on the image's id, the seed and the strength only, not on other
images or on their order. A tag that is lost or invented at one strength is lost or invented at every greater strength,
so that a curve over strengths shows the effect of the strength and not of the random draws.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tags import ScoredTag, tags_from_rows, tags_to_rows
from pipelines.core.errors import UserError
from pipelines.core.tables import TAG

_CERTAIN = 1e-6  # confidences of 0 and 1 have no finite logit and are moved inside by this


@dataclass(frozen=True)
class TagErrors:
    """The errors of a tagger at strength 1."""

    drop: float = 0.5
    """Share of the tags that are lost at strength 1."""
    invent: float = 0.5
    """Invented tags at strength 1, as a share of the image's tags. Each is drawn from the tags of all images and gets
    the confidence of one of the image's tags."""
    miscalibrate: float = 1.5
    """Standard deviation, at strength 1, of the noise on each confidence's logit. With 1.5, a confidence of 0.8 becomes
    0.47 to 0.95 two times out of three."""
    seed: int = 0
    """Seed of the random draws; change it to get other errors."""

    def __post_init__(self) -> None:
        _require_shares({"drop": self.drop, "invent": self.invent})
        if self.seed < 0:
            raise UserError(f"Tag noise has seed {self.seed}; give 0 or more.")
        if not 0 <= self.miscalibrate < math.inf:
            raise UserError(f"Tag noise has miscalibrate {self.miscalibrate}; give a standard deviation, 0 or more.")


@dataclass(frozen=True)
class TagNoise(TagErrors):
    """Errors that are added to the tags when they are read; the stored tags stay unchanged."""

    strength: float = 0.0
    """Noise strength in [0, 1]; it scales the three kinds of errors. 0 leaves the tags unchanged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_shares({"strength": self.strength})


def add_noise(tags: Sequence[ScoredTag], image_id: str, vocabulary: Sequence[str], noise: TagNoise) -> list[ScoredTag]:
    """Return an image's tags with errors, by falling confidence; at strength 0 the unchanged tags.

    Args:
        tags: (tag, confidence in [0, 1]), by falling confidence.
        image_id: determines the errors, together with the seed.
        vocabulary: tags that may be invented, in a fixed order; tags of the image are never invented.
        noise: the kinds of errors and their strength.
    """
    if noise.strength == 0 or not tags:
        return list(tags)
    rng = np.random.default_rng([noise.seed, _number(image_id)])
    # The draws are the same for every strength, which only decides how many of the errors happen.
    losing, inventing = rng.random((2, len(tags)))
    shifts = rng.standard_normal((2, len(tags))) * noise.miscalibrate * noise.strength
    present = {tag for tag, _ in tags}
    absent = [tag for tag in vocabulary if tag not in present]
    strangers = [absent[index] for index in rng.permutation(len(absent))[: len(tags)]]
    noisy = [
        (tag, _shifted(score, shifts[0, rank]))
        for rank, (tag, score) in enumerate(tags)
        if losing[rank] >= noise.strength * noise.drop
    ]
    noisy += [
        (stranger, _shifted(tags[rank][1], shifts[1, rank]))
        for rank, stranger in enumerate(strangers)
        if inventing[rank] < noise.strength * noise.invent
    ]
    return sorted(noisy, key=lambda item: -item[1])


def noisy_column(image_ids: pa.ChunkedArray, tags: pa.ChunkedArray, noise: TagNoise) -> pa.ChunkedArray:
    """Return the `tags` of many images with errors; at strength 0 the unchanged column.

    Args:
        image_ids: (n) strings.
        tags: (n) lists of `tables.TAG`, or null.
        noise: the kinds of errors and their strength.
    """
    if noise.strength == 0:
        return tags
    vocabulary = sorted(pc.unique(pc.struct_field(pc.list_flatten(tags), "tag")).to_pylist())
    rows = [
        None if tag_rows is None else tags_to_rows(add_noise(tags_from_rows(tag_rows), image_id, vocabulary, noise))
        for image_id, tag_rows in zip(image_ids.to_pylist(), tags.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(rows, pa.list_(TAG))])


def _number(image_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big")


def _shifted(score: float, shift: float) -> float:
    """Return a confidence after a shift of its logit; exactly the same confidence where the shift is 0."""
    if shift == 0:
        return score
    inside = min(max(score, _CERTAIN), 1 - _CERTAIN)
    return 1 / (1 + math.exp(-(math.log(inside / (1 - inside)) + shift)))


def _require_shares(shares: Mapping[str, float]) -> None:
    if wrong := {name: value for name, value in shares.items() if not 0 <= value <= 1}:
        raise UserError(f"Tag noise has {wrong}; give strength, drop and invent between 0 and 1.")
