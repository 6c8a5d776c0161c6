"""The simulated tagger: mostly right, confuses look-alikes, and its confidences are informative."""

from collections import Counter

import numpy as np

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import LOOK_ALIKES
from pipelines.sample_world.tagging import SCORE_FLOOR, VOCABULARY


def true_tags(entry: Entry) -> set[str]:
    return {tag for item in entry.scene.objects for tag in (item.shape, item.color, item.name)}


def test_scores_are_sorted_probabilities_above_the_floor(entries: list[Entry]) -> None:
    for entry in entries:
        scores = [score for _, score in entry.tags]
        assert scores == sorted(scores, reverse=True)
        assert all(SCORE_FLOOR <= score < 1 for score in scores)
        assert {tag for tag, _ in entry.tags} <= set(VOCABULARY)
        assert len({tag for tag, _ in entry.tags}) == len(scores)


def test_precision_and_recall_are_high_but_not_perfect(entries: list[Entry]) -> None:
    scored = [(tag in true_tags(entry), score) for entry in entries for tag, score in entry.tags]
    precision = np.mean([right for right, score in scored if score > 0.5])
    recall = sum(right for right, score in scored if score > 0.5) / sum(len(true_tags(entry)) for entry in entries)
    assert 0.75 < precision < 0.95
    assert 0.75 < recall < 0.97


def test_higher_confidence_is_more_often_right(entries: list[Entry]) -> None:
    scored = [(tag in true_tags(entry), score) for entry in entries for tag, score in entry.tags]
    shares = [
        np.mean([right for right, score in scored if low <= score < low + 0.25]) for low in (0.0, 0.25, 0.5, 0.75)
    ]
    assert shares == sorted(shares)
    assert shares[-1] - shares[0] > 0.5


def test_errors_are_mostly_look_alikes(entries: list[Entry]) -> None:
    wrong: Counter[bool] = Counter()
    for entry in entries:
        present = true_tags(entry)
        like = {LOOK_ALIKES[tag] for tag in present if tag in LOOK_ALIKES} - present
        singles = {tag for tag in VOCABULARY if " " not in tag} - present
        for tag, score in entry.tags:
            if tag in singles and score > 0.3:
                wrong[tag in like] += 1
    assert wrong[True] > 5 * wrong[False]


def test_the_vocabulary_is_shapes_colors_and_their_pairs() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 8 + 8 + 64
