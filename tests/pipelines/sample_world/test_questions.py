"""Questions: true answers, balanced over the world, and annotators who do not all agree."""

import random
import re
from collections import Counter

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.questions import annotate
from pipelines.sample_world.scenes import COLORS, SHAPES


def test_the_truth_is_what_most_annotators_say(entries: list[Entry]) -> None:
    disagreeing = 0
    for asked in (asked for entry in entries for asked in entry.vqa):
        assert len(asked.answers) == 10
        assert Counter(asked.answers).most_common(1)[0][0] == asked.truth
        disagreeing += len(set(asked.answers)) > 1
    total = sum(len(entry.vqa) for entry in entries)
    assert 0.5 < disagreeing / total < 0.95


def test_annotators_always_keep_a_majority() -> None:
    for seed in range(300):
        assert annotate("a", ["b"], random.Random(seed)).count("a") >= 6


def test_answers_are_true(entries: list[Entry]) -> None:
    """Read again from the words of the question, for the types whose words say it all."""
    checked: Counter[str] = Counter()
    for entry in entries:
        scene = entry.scene
        for asked in entry.vqa:
            if found := re.fullmatch(r"How many (\w+) are there\?", asked.text):
                number = sum(found[1] in (item.shape + "s", item.shape + "es") for item in scene.objects)
            elif found := re.fullmatch(r"How many (\w+) objects are there\?", asked.text):
                number = sum(item.color == found[1] for item in scene.objects)
            elif found := re.fullmatch(r"Is there an? (.+) in the picture\?", asked.text):
                assert asked.truth == ("yes" if found[1] in scene.names else "no")
                checked["presence"] += 1
                continue
            elif found := re.fullmatch(r"What color is the (\w+)\?", asked.text):
                assert [item.color for item in scene.objects if item.shape == found[1]] == [asked.truth]
                checked["color"] += 1
                continue
            elif found := re.fullmatch(r"What shape is the (\w+) object\?", asked.text):
                assert [item.shape for item in scene.objects if item.color == found[1]] == [asked.truth]
                checked["shape"] += 1
                continue
            else:
                _check_place(entry, asked.text, asked.truth)
                checked["place"] += 1
                continue
            assert asked.truth == str(number)
            checked["count"] += 1
    assert min(checked[kind] for kind in ("count", "presence", "color", "shape", "place")) > 80


def _check_place(entry: Entry, text: str, truth: str) -> None:
    found = re.fullmatch(
        r"Is the (.+?) (to the left or to the right of|above or below|to the left of|to the right of|above|below)"
        r" the (.+)\?",
        text,
    )
    assert found, text
    item, anchor = (
        next(item for item in entry.scene.objects if f"{item.size} {item.name}".endswith(name))
        for name in found.group(1, 3)
    )
    axis, before, after = (0, "left", "right") if "left" in found[2] or "right" in found[2] else (1, "above", "below")
    side = before if item.center[axis] < anchor.center[axis] else after
    if " or " in found[2]:
        assert truth == side
    else:
        assert truth == ("yes" if side in found[2] else "no")


def test_answers_are_balanced(entries: list[Entry]) -> None:
    answers = Counter((asked.answer_type, asked.truth) for entry in entries for asked in entry.vqa)
    yes, no = answers["yes/no", "yes"], answers["yes/no", "no"]
    assert abs(yes - no) < 0.1 * (yes + no)
    assert 0.6 < answers["other", "left"] / answers["other", "right"] < 1.7
    assert 0.6 < answers["number", "0"] / answers["number", "1"] < 1.7
    common = max(answers["other", color] for color in COLORS)
    assert common < 0.3 * sum(answers["other", color] for color in COLORS)
    common = max(answers["other", shape] for shape in SHAPES)
    assert common < 0.3 * sum(answers["other", shape] for shape in SHAPES)


def test_choices_hold_the_answer_once_at_any_place(entries: list[Entry]) -> None:
    places: Counter[int] = Counter()
    for asked in (entry.choice for entry in entries):
        assert len(set(asked.choices)) == 4
        assert Counter(asked.direct_answers).most_common(1)[0][0] == asked.choices[asked.correct_choice]
        places[asked.correct_choice] += 1
    assert min(places[place] for place in range(4)) > 0.15 * len(entries)
