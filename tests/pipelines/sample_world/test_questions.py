"""Questions: true answers, balanced over scenes, and annotators who do not all agree."""

import random
import re
from collections import Counter

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.questions import annotate
from pipelines.sample_world.scenes import COLORS, SHAPES


def test_the_truth_is_the_most_frequent_answer(entries: list[Entry]) -> None:
    disagreeing = 0
    for question in (question for entry in entries for question in entry.vqa):
        assert len(question.answers) == 10
        assert Counter(question.answers).most_common(1)[0][0] == question.truth
        disagreeing += len(set(question.answers)) > 1
    total = sum(len(entry.vqa) for entry in entries)
    assert 0.5 < disagreeing / total < 0.95


def test_annotators_always_keep_a_majority() -> None:
    for seed in range(300):
        assert annotate("a", ["b"], random.Random(seed)).count("a") >= 6


def test_answers_are_true(entries: list[Entry]) -> None:
    """Parse each question again and compute its answer from the scene."""
    checked: Counter[str] = Counter()
    for entry in entries:
        scene = entry.scene
        for question in entry.vqa:
            if match := re.fullmatch(r"How many (\w+) are there\?", question.text):
                number = sum(match[1] in (item.shape + "s", item.shape + "es") for item in scene.objects)
            elif match := re.fullmatch(r"How many (\w+) objects are there\?", question.text):
                number = sum(item.color == match[1] for item in scene.objects)
            elif match := re.fullmatch(r"Is there an? (.+) in the picture\?", question.text):
                assert question.truth == ("yes" if match[1] in scene.names else "no")
                checked["presence"] += 1
                continue
            elif match := re.fullmatch(r"What color is the (\w+)\?", question.text):
                assert [item.color for item in scene.objects if item.shape == match[1]] == [question.truth]
                checked["color"] += 1
                continue
            elif match := re.fullmatch(r"What shape is the (\w+) object\?", question.text):
                assert [item.shape for item in scene.objects if item.color == match[1]] == [question.truth]
                checked["shape"] += 1
                continue
            else:
                _check_relation(entry, question.text, question.truth)
                checked["relation"] += 1
                continue
            assert question.truth == str(number)
            checked["count"] += 1
    assert min(checked[kind] for kind in ("count", "presence", "color", "shape", "relation")) > 80


def _check_relation(entry: Entry, text: str, truth: str) -> None:
    match = re.fullmatch(
        r"Is the (.+?) (to the left or to the right of|above or below|to the left of|to the right of|above|below)"
        r" the (.+)\?",
        text,
    )
    assert match, text
    item, anchor = (
        next(item for item in entry.scene.objects if f"{item.size} {item.name}".endswith(name))
        for name in match.group(1, 3)
    )
    axis, before, after = (0, "left", "right") if "left" in match[2] or "right" in match[2] else (1, "above", "below")
    side = before if item.center[axis] < anchor.center[axis] else after
    if " or " in match[2]:
        assert truth == side
    else:
        assert truth == ("yes" if side in match[2] else "no")


def test_answers_are_balanced(entries: list[Entry]) -> None:
    answers = Counter((question.answer_type, question.truth) for entry in entries for question in entry.vqa)
    yes, no = answers["yes/no", "yes"], answers["yes/no", "no"]
    assert abs(yes - no) < 0.1 * (yes + no)
    assert 0.6 < answers["other", "left"] / answers["other", "right"] < 1.7
    assert 0.6 < answers["number", "0"] / answers["number", "1"] < 1.7
    common = max(answers["other", color] for color in COLORS)
    assert common < 0.3 * sum(answers["other", color] for color in COLORS)
    common = max(answers["other", shape] for shape in SHAPES)
    assert common < 0.3 * sum(answers["other", shape] for shape in SHAPES)


def test_choices_contain_the_answer_once_at_any_position(entries: list[Entry]) -> None:
    positions: Counter[int] = Counter()
    for question in (entry.choice for entry in entries):
        assert len(set(question.choices)) == 4
        assert Counter(question.direct_answers).most_common(1)[0][0] == question.choices[question.correct_choice]
        positions[question.correct_choice] += 1
    assert min(positions[position] for position in range(4)) > 0.15 * len(entries)
