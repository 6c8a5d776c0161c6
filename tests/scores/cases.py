"""Inputs on which scorers differ, each with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: what the row is called.
        benchmark: what it is scored as.
        predictions: (n) answers.
        references: (n) as `pipelines.scoring.score` takes them.
        numbers: names of the estimates that are shown.
        why: why the scorers differ, in a sentence.
    """

    name: str
    benchmark: str
    predictions: Sequence[str]
    references: Sequence[Any]
    numbers: Sequence[str]
    why: str


def _vqa(name: str, prediction: str, answers: Sequence[str], why: str) -> Case:
    return Case(name, "vqa", [prediction], [list(answers)], ["soft_accuracy"], why)


_POPE = {
    "yes": [
        "Yes", "yes", "Yes, there is a dog.", "Yes.", "Yes!", "YES, it is", "", "There is a dog",
        "There is no cat, but yes, a dog.", "It is not clear",
    ],
    "no": [
        "No", "no", "NO", "No, there is not.", "No!", "There is no dog.", "Nope, no. Nothing", "None",
        "Nothing of the kind", "There isn't one", "I cannot see it", "A cat",
    ],
}  # fmt: skip
_POPE_ANSWERS = [answer for answers in _POPE.values() for answer in answers]
_POPE_LABELS = [label for label, answers in _POPE.items() for _ in answers]
_BOX = [0.2, 0.3, 0.6, 0.7]
_CAPTIONS: dict[str, list[str]] = {
    "A man's dog sits on a red couch.": ["A dog sitting on a couch.", "The man's dog is on the red couch"],
    "Two people ride bikes down a street, near a bus.": ["Two people riding bikes near a bus.", "People on bikes"],
    "A plate of food: pizza, salad and 1/2 an apple.": ["A plate with pizza and salad.", "Pizza, salad, half an apple"],
    "A black-and-white cat (asleep) in a box": ["A black-and-white cat sleeps in a box.", "A cat in a cardboard box"],
    "The train is at the station.": ["A train stopped at a station.", "A red train, waiting at the platform."],
}

CASES = (
    _vqa(
        "VQA `two`, ten `two`", "two", ["two"] * 10,
        "LAVIS makes the prediction `2` but leaves answers as they are where all agree; the official code then "
        "leaves both.",
    ),
    _vqa(
        "VQA `Yes`, ten `yes`", "Yes", ["yes"] * 10,
        "Where all annotators agree the official code compares plain strings, so case counts; the others put the "
        "prediction in lower case always.",
    ),
    _vqa(
        "VQA `two`, ten `2`", "two", ["2"] * 10,
        "The same: no number words are turned into digits where all annotators agree.",
    ),
    _vqa(
        "VQA `the dog`, ten `the dog`", "the dog", ["the dog"] * 10,
        "LAVIS takes the article from the prediction and from no annotator's answer.",
    ),
    _vqa(
        "VQA `none`, 4 `none` + 6 `zero`", "none", ["none"] * 4 + ["zero"] * 6,
        "Number words of the annotators become digits in every code but LAVIS's, which takes only their punctuation.",
    ),
    _vqa(
        "VQA empty, 3 `a` + 7 `dog`", "", ["a"] * 3 + ["dog"] * 7,
        "Where annotators' articles are taken away, `a` becomes nothing, and silence agrees with it; results count it.",
    ),
    Case(
        "A-OKVQA direct `Dog`, ten `dog`", "aokvqa_direct", ["Dog"], [["dog"] * 10], ["direct_answer"],
        "The authors' code and LAVIS compare plain strings; the harnesses have no task of direct answers.",
    ),
    Case(
        "POPE, 22 answers: accuracy / F1 / yes-rate", "pope", _POPE_ANSWERS, _POPE_LABELS,
        ["accuracy", "f1", "yes_rate"],
        "Officially all that does not say no in its first sentence is a yes, silence too; lmms-eval wants the bare "
        "word, leaves unread answers out of the recall and gives the labels' yes-rate; VLMEvalKit wants one of the two "
        "words.",
    ),
    Case(
        "box `[200,300,600,700]`, IoU", "rec", ["[200,300,600,700]"], [_BOX], ["mean_iou"],
        "lmms-eval takes the numbers as they are; VLMEvalKit divides by 1000 where one is above 1.5; here whole "
        "numbers up to 999 are on the scale 0 to 999.",
    ),
    Case(
        "box `[0.2 0.3 0.6 0.7]`, IoU", "rec", ["[0.2 0.3 0.6 0.7]"], [_BOX], ["mean_iou"],
        "lmms-eval's pattern needs commas between the numbers.",
    ),
    Case(
        "box `[0.2,0.3,1.2,0.7]`, IoU", "rec", ["[0.2,0.3,1.2,0.7]"], [_BOX], ["mean_iou"],
        "lmms-eval does not cut a box to the image.",
    ),
    Case(
        "CIDEr, 5 captions", "caption", list(_CAPTIONS), list(_CAPTIONS.values()), ["CIDEr"],
        "VLMEvalKit hands pycocoevalcap the captions untokenized, with capitals and punctuation.",
    ),
)  # fmt: skip
