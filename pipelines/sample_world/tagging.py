"""A simulated image tagger: mostly right, with confidences that are higher for right tags.

It misses small and rare objects, confuses look-alikes, and combines the color of one object with the shape of another.
The vocabulary has every shape, every color and every color-shape pair.
"""

import math
import random

from models.tags import ImageTags
from pipelines.sample_world.scenes import COLORS, LOOK_ALIKES, SHAPES, Scene

VOCABULARY = (*SHAPES, *COLORS, *(f"{color} {shape}" for color in COLORS for shape in SHAPES))
SCORE_FLOOR = 0.05

# Mean and standard deviation of the logit of a tag, by its evidence in the scene.
_SEEN_LARGE, _SEEN_SMALL = (2.8, 1.2), (1.4, 1.3)
_LOOK_ALIKE = (-0.9, 1.2)
_WRONGLY_BOUND = (-1.8, 1.0)
_ABSENT = (-5.0, 1.2)
_RARE, _RARE_PENALTY = 0.07, 0.6  # a tagger learns tags below this frequency less well


def tag_scores(scene: Scene, rng: random.Random) -> ImageTags:
    """Return the tags above `SCORE_FLOOR` with their confidences in (0, 1), by descending confidence."""
    evidence = _evidence(scene)
    scores = []
    for tag in VOCABULARY:
        mean, deviation = evidence.get(tag, _ABSENT)
        score = 1 / (1 + math.exp(-rng.gauss(mean, deviation)))
        if score >= SCORE_FLOOR:
            scores.append((tag, round(score, 4)))
    return sorted(scores, key=lambda entry: (-entry[1], entry[0]))


def _evidence(scene: Scene) -> dict[str, tuple[float, float]]:
    """Return the strongest evidence (mean and deviation of the logit) for each tag that the scene supports."""
    evidence: dict[str, tuple[float, float]] = {}

    def note(tag: str, logit: tuple[float, float]) -> None:
        if tag not in evidence or evidence[tag][0] < logit[0]:
            evidence[tag] = logit

    for item in scene.objects:
        mean, deviation = _SEEN_LARGE if item.size == "large" else _SEEN_SMALL
        if min(SHAPES[item.shape], COLORS[item.color]) <= _RARE:
            mean -= _RARE_PENALTY
        for tag in (item.shape, item.color, item.name):
            note(tag, (mean, deviation))
        for look_alike, pair in (
            (LOOK_ALIKES.get(item.shape), f"{item.color} {LOOK_ALIKES.get(item.shape)}"),
            (LOOK_ALIKES.get(item.color), f"{LOOK_ALIKES.get(item.color)} {item.shape}"),
        ):
            if look_alike is not None:
                note(look_alike, _LOOK_ALIKE)
                note(pair, _LOOK_ALIKE)
        for other in scene.objects:
            note(f"{item.color} {other.shape}", _WRONGLY_BOUND)
    return evidence
