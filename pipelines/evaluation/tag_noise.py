"""Tag noise: what a worse tagger would have said. A prompt made of tags is for their errors, so they are measured.

The stored tags stay as they are; noise is added when an evaluation reads them. What happens to an image's tags depends
on the image's id, the seed and the strength alone, never on other images or on their order; and what is lost or
invented at one strength is so at every greater one, so that a curve over strengths shows the strength and not the luck.
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

_CERTAIN = 1e-6  # confidences of 0 and 1 have no logit; they are taken for this near to it


@dataclass(frozen=True)
class TagErrors:
    """What a tagger does wrong at full strength."""

    drop: float = 0.5
    """Lost tags at strength 1, as a share of the tags."""
    invent: float = 0.5
    """Invented tags at strength 1, as a share of the tags; each is as sure as a tag that is there, and comes from the
    tags of all images."""
    miscalibrate: float = 1.5
    """Standard deviation at strength 1 of what is added to each confidence's logit: 1.5 turns 0.8 into anything
    between 0.47 and 0.95 two times out of three."""
    seed: int = 0
    """Another seed, other errors."""

    def __post_init__(self) -> None:
        _require_shares({"drop": self.drop, "invent": self.invent})
        if self.seed < 0:
            raise UserError(f"Tag noise has seed {self.seed}; a seed is 0 or more.")
        if not 0 <= self.miscalibrate < math.inf:
            raise UserError(f"Tag noise has miscalibrate {self.miscalibrate}; it is a standard deviation, 0 or more.")


@dataclass(frozen=True)
class TagNoise(TagErrors):
    """Errors that are put into the tags as they are read; the stored tags stay as they are."""

    strength: float = 0.0
    """How much, from 0 (the tags as they are, bit by bit) to 1; it multiplies the three kinds of errors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_shares({"strength": self.strength})


def add_noise(tags: Sequence[ScoredTag], image_id: str, vocabulary: Sequence[str], noise: TagNoise) -> list[ScoredTag]:
    """Return an image's tags with errors, by falling confidence; at strength 0 the tags themselves.

    Args:
        tags: (tag, confidence in [0, 1]), by falling confidence.
        image_id: decides, with the seed, which errors are made.
        vocabulary: tags that may be invented, in a fixed order; those that the image has are never invented.
        noise: which errors, and how many.
    """
    if noise.strength == 0 or not tags:
        return list(tags)
    generator = np.random.default_rng([noise.seed, _number(image_id)])
    # Drawn in this order and number whatever the strength: it decides only how many of the errors are made.
    losing, inventing = generator.random((2, len(tags)))
    shifts = generator.standard_normal((2, len(tags))) * noise.miscalibrate * noise.strength
    present = {tag for tag, _ in tags}
    absent = [tag for tag in vocabulary if tag not in present]
    strangers = [absent[place] for place in generator.permutation(len(absent))[: len(tags)]]
    noisy = [
        (tag, _shifted(score, shifts[0, place]))
        for place, (tag, score) in enumerate(tags)
        if losing[place] >= noise.strength * noise.drop
    ]
    noisy += [
        (stranger, _shifted(tags[place][1], shifts[1, place]))
        for place, stranger in enumerate(strangers)
        if inventing[place] < noise.strength * noise.invent
    ]
    return sorted(noisy, key=lambda item: -item[1])


def noisy_column(image_ids: pa.ChunkedArray, tags: pa.ChunkedArray, noise: TagNoise) -> pa.ChunkedArray:
    """Return the `tags` of many images with errors; at strength 0 the very column that was given.

    Args:
        image_ids: (n) strings.
        tags: (n) lists of `tables.TAG`, or null.
        noise: which errors, and how many.
    """
    if noise.strength == 0:
        return tags
    vocabulary = sorted(pc.unique(pc.struct_field(pc.list_flatten(tags), "tag")).to_pylist())
    rows = [
        None if given is None else tags_to_rows(add_noise(tags_from_rows(given), image_id, vocabulary, noise))
        for image_id, given in zip(image_ids.to_pylist(), tags.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(rows, pa.list_(TAG))])


def _number(image_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big")


def _shifted(score: float, shift: float) -> float:
    """Return a confidence whose logit is moved; not touched where it is not moved."""
    if shift == 0:
        return score
    inside = min(max(score, _CERTAIN), 1 - _CERTAIN)
    return 1 / (1 + math.exp(-(math.log(inside / (1 - inside)) + shift)))


def _require_shares(shares: Mapping[str, float]) -> None:
    if wrong := {name: value for name, value in shares.items() if not 0 <= value <= 1}:
        raise UserError(f"Tag noise has {wrong}; strength, drop and invent are between 0 and 1.")
