"""POPE's polling questions (Li et al., EMNLP 2023): three "yes" and three "no" for each image, in three difficulties.

An object is a color-shape pair. Absent objects are drawn at random (random), by their frequency in the split (popular),
or by how often they occur together with the objects of the image (adversarial). In such a small world the raw number of
co-occurrences would give the popular objects again, so it is divided by the object's frequency.
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

from pipelines.sample_world.language import with_article
from pipelines.sample_world.questions import absent_names
from pipelines.sample_world.scenes import Scene

PopeKind = Literal["random", "popular", "adversarial"]
POPE_KINDS: tuple[PopeKind, ...] = ("random", "popular", "adversarial")
_PER_ANSWER = 3
_SMOOTHING = 3  # added to a frequency, so that a rare object with one co-occurrence does not get the largest ratio


def pope_questions(
    scenes: Sequence[Scene], file_names: Sequence[str], kind: PopeKind, seed: str
) -> list[dict[str, Any]]:
    """Return the rows of one POPE file in the official format: "yes" and "no" alternate.

    Args:
        scenes: the scenes of a split.
        file_names: the name of each scene's image file.
        kind: how absent objects are chosen; the "yes" rows are the same for every kind.
        seed: seed of the draws.
    """
    frequency = Counter(name for scene in scenes for name in scene.names)
    pair_counts: Counter[tuple[str, str]] = Counter()
    for scene in scenes:
        for first, second in combinations(scene.names, 2):
            pair_counts[first, second] += 1
            pair_counts[second, first] += 1
    rows: list[dict[str, Any]] = []
    for number, (scene, file_name) in enumerate(zip(scenes, file_names, strict=True)):
        rng = random.Random(f"{seed}/{number}")
        present = rng.sample(scene.names, _PER_ANSWER)
        for yes, no in zip(present, _absent(scene, kind, frequency, pair_counts, rng), strict=True):
            for name, label in ((yes, "yes"), (no, "no")):
                text = f"Is there {with_article(name)} in the image?"
                rows.append({"question_id": len(rows) + 1, "image": file_name, "text": text, "label": label})
    return rows


def _absent(
    scene: Scene, kind: PopeKind, frequency: Counter[str], pair_counts: Counter[tuple[str, str]], rng: random.Random
) -> list[str]:
    absent = absent_names(scene)
    rng.shuffle(absent)  # ties are broken at random
    if kind == "popular":
        absent.sort(key=lambda name: -frequency[name])
    elif kind == "adversarial":
        co_occurrence = {name: sum(pair_counts[name, present] for present in scene.names) for name in absent}
        absent.sort(key=lambda name: -co_occurrence[name] / (frequency[name] + _SMOOTHING))
    return absent[:_PER_ANSWER]
