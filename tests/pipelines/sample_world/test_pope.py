"""POPE: as many "yes" as "no", and three difficulties of absent objects."""

from collections import Counter

import pytest

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.pope import POPE_KINDS, PopeKind, pope_questions
from pipelines.sample_world.scenes import Scene


def pope_rows(entries: list[Entry], kind: PopeKind) -> tuple[list[Scene], list[tuple[Scene, str, str]]]:
    """Return the scenes, and the questions as (scene, object name, label)."""
    scenes = [entry.scene for entry in entries]
    rows = pope_questions(scenes, [str(number) for number in range(len(scenes))], kind, "seed")
    assert [row["question_id"] for row in rows] == list(range(1, 6 * len(scenes) + 1))
    named = [row["text"].removeprefix("Is there a").removeprefix("n").removesuffix(" in the image?") for row in rows]
    return scenes, [
        (scenes[int(row["image"])], name.strip(), row["label"]) for row, name in zip(rows, named, strict=True)
    ]


@pytest.mark.parametrize("kind", POPE_KINDS)
def test_labels_are_true_and_alternate(entries: list[Entry], kind: PopeKind) -> None:
    _, questions = pope_rows(entries, kind)
    assert [label for _, _, label in questions] == ["yes", "no"] * (3 * len(entries))
    assert all((name in scene.names) == (label == "yes") for scene, name, label in questions)


def test_kinds_share_the_yes_questions_and_differ_in_the_no_questions(entries: list[Entry]) -> None:
    answers = {kind: pope_rows(entries, kind)[1] for kind in POPE_KINDS}
    yes = {kind: [row for row in rows if row[2] == "yes"] for kind, rows in answers.items()}
    assert yes["random"] == yes["popular"] == yes["adversarial"]
    no = {kind: Counter(name for _, name, label in rows if label == "no") for kind, rows in answers.items()}
    assert len(no["popular"]) < len(no["adversarial"]) <= len(no["random"])


def test_adversarial_objects_occur_together_with_objects_of_the_image(entries: list[Entry]) -> None:
    """Compare how often an absent object occurs in other images together with an object of this image."""
    seen = [set(entry.scene.names) for entry in entries]

    def co_occurrence(kind: PopeKind) -> float:
        shares = []
        for scene, name, label in pope_rows(entries, kind)[1]:
            holding = [names for names in seen if name in names]
            if label == "no" and holding:
                shares.append(sum(not names.isdisjoint(scene.names) for names in holding) / len(holding))
        return sum(shares) / len(shares)

    assert co_occurrence("adversarial") > 1.2 * co_occurrence("random")
