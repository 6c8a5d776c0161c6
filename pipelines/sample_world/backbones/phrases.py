"""Phrases packed into single input vectors, as preparation of the small T5 for LION's visual tokens.

A phrase such as "small red circle" with a box becomes one vector: the sum of T5's embeddings of its words and a code of
the box. Only words and numbers are used, no image and no ViT. The code of boxes is not part of LION: its aggregator and
Q-Former must learn themselves which vectors the T5 understands.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.sample_world.backbones.world import normalized_box
from pipelines.sample_world.scenes import BACKGROUNDS, COLORS, SHAPES, Scene
from pipelines.sources.boxes import Box

Form = Literal["list", "grid", "both", "words"]
FORMS: tuple[Form, ...] = get_args(Form)
WORDS = (*SHAPES, *COLORS, "small", "large", "center", "background", *{w for name in BACKGROUNDS for w in name.split()})
_WIDEST = 7  # largest number of words in a phrase
_LEAST_OVERLAP = 0.12  # fraction of a cell that an object must cover, as for the ViT's patches
_FREQUENCIES = (1, 2, 4)
# Noise, because LION's visual tokens will not be exact: probabilities of a blurred word, a faded word, a missing cell,
# and the standard deviation of the boxes.
_BLURRED, _FADED, _MISSED = 0.15, 0.3, 0.1
_SHIFT, _CENTER_SHIFT = 0.012, 0.005


@dataclass(frozen=True)
class Phrase:
    """Words about an object or the background.

    Attributes:
        words: the words.
        weights: the weight of each word in the sum of embeddings.
        box: normalized box of the object; None for the background.
        number: index of the object in the scene; None for the background.
    """

    words: tuple[str, ...]
    weights: tuple[float, ...]
    box: Box | None = None
    number: int | None = None


class PhraseReader(nn.Module):
    """A module that sums the embeddings of a phrase's words and the code of its box.

    Args:
        width: width of the embeddings.
        word_ids: the token id of each of `WORDS`.
    """

    def __init__(self, width: int, word_ids: Mapping[str, int]) -> None:
        super().__init__()
        self.word_ids = dict(word_ids)
        self.place = nn.Linear(4 * (1 + 2 * len(_FREQUENCIES)), width)
        # With this deviation the code is about as long as T5's embedding of one or two words.
        nn.init.normal_(self.place.weight, std=0.5)

    def tensors(self, phrases: Sequence[Sequence[Phrase]]) -> dict[str, Tensor]:
        """Convert B × K phrases to tensors.

        Returns:
            `phrase_ids` and `phrase_weights` (B, K, `_WIDEST`), `phrase_boxes` (B, K, 4), and `phrase_placed` (B, K),
            which is 1 for phrases with a box.
        """
        shape = (len(phrases), len(phrases[0]))
        ids, weights = np.zeros((*shape, _WIDEST), np.int64), np.zeros((*shape, _WIDEST), np.float32)
        boxes, placed = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32)
        for row, scene_phrases in enumerate(phrases):
            for column, phrase in enumerate(scene_phrases):
                count = len(phrase.words)
                ids[row, column, :count] = [self.word_ids[word] for word in phrase.words]
                weights[row, column, :count] = phrase.weights
                if phrase.box is not None:
                    boxes[row, column], placed[row, column] = phrase.box, 1
        arrays = {"phrase_ids": ids, "phrase_weights": weights, "phrase_boxes": boxes, "phrase_placed": placed}
        return {name: torch.from_numpy(value) for name, value in arrays.items()}

    def forward(
        self,
        embed: nn.Embedding,
        phrase_ids: Tensor,
        phrase_weights: Tensor,
        phrase_boxes: Tensor,
        phrase_placed: Tensor,
    ) -> Tensor:
        """Return the vectors of the phrases, (B, K, width)."""
        words = (embed(phrase_ids) * phrase_weights[..., None]).sum(-2)
        waves = [wave(math.pi * k * phrase_boxes) for k in _FREQUENCIES for wave in (torch.sin, torch.cos)]
        code = self.place(torch.cat([2 * phrase_boxes - 1, *waves], dim=-1))
        return words + code * phrase_placed[..., None]


def list_phrases(scene: Scene, slots: int, rng: random.Random, noisy: bool = True) -> list[Phrase]:
    """Return a scene as a list: each object once, with the word "center", in random slots.

    The other slots have the background or repeat an object without "center".
    """
    empty = _background(scene)
    rows = [empty] * slots
    object_slots = rng.sample(range(slots), min(slots, len(scene.objects)))
    for number, slot in enumerate(object_slots):
        rows[slot] = _object(number, scene, True, rng, noisy)
    for slot in set(range(slots)) - set(object_slots):
        if rng.random() < 0.4:
            rows[slot] = _object(rng.randrange(len(scene.objects)), scene, False, rng, noisy)
    return rows


def grid_phrases(scene: Scene, grid: int, rng: random.Random, noisy: bool = True) -> list[Phrase]:
    """Return a scene as a grid: for each cell, row by row, the object that covers most of it, or the background.

    The cell with an object's center has the word "center".
    """
    rows = [_background(scene)] * grid**2
    boxes = [normalized_box(item, scene) for item in scene.objects]
    for cell in range(grid**2):
        left, top = cell % grid / grid, cell // grid / grid
        best, most = -1, _LEAST_OVERLAP / grid**2
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            area = max(0, min(x2, left + 1 / grid) - max(x1, left)) * max(0, min(y2, top + 1 / grid) - max(y1, top))
            if area > most:
                best, most = number, area
        if best < 0:
            continue
        x1, y1, x2, y2 = boxes[best]
        center = int((y1 + y2) / 2 * grid) * grid + int((x1 + x2) / 2 * grid) == cell
        if center or not noisy or rng.random() >= _MISSED:
            rows[cell] = _object(best, scene, center, rng, noisy)
    return rows


def _background(scene: Scene) -> Phrase:
    words = ("background", *scene.background.split())
    return Phrase(words, (1.0,) * len(words))


def _object(number: int, scene: Scene, center: bool, rng: random.Random, noisy: bool) -> Phrase:
    """Return the phrase of an object. With noise, a word may be faded or mixed with another, and the box is shifted."""
    item = scene.objects[number]
    words = [item.size, item.color, item.shape, *(["center"] if center else [])]
    weights = [1.0] * len(words)
    box = normalized_box(item, scene)
    if not noisy:
        return Phrase(tuple(words), tuple(weights), box, number)
    if not center and rng.random() < _FADED:
        weights[rng.randrange(3)] = rng.choice((0.0, 0.5))
    if rng.random() < _BLURRED:
        blurred, alternatives = rng.choice(((1, COLORS), (2, SHAPES)))
        part = rng.uniform(0, 0.45)
        weights[blurred] *= 1 - part
        words.append(rng.choice(list(alternatives)))
        weights.append(part)
    x1, y1, x2, y2 = (edge + rng.gauss(0, _CENTER_SHIFT if center else _SHIFT) for edge in box)
    return Phrase(tuple(words), tuple(weights), (x1, y1, x2, y2), number)
