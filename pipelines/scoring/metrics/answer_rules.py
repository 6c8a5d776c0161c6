"""The rules of VQA's soft accuracy: how a prediction and the annotators' answers are normalized before comparison.

All rules share one formula: min(agreeing annotators / 3, 1), averaged over leaving out each annotator in turn. They
differ in which texts are normalized, which changes a published number by whole points:

* `official`: GT-Vision-Lab/VQA since 2021 (a013f00). Prediction and answers are normalized where the annotators do not
  all agree; where they agree, both are compared as written.
* `lavis`: LAVIS 1.0.2, the official rule before 2021, used for LION's and BLIP-2's published numbers. The prediction is
  always normalized. Of the answers only the punctuation is, and only where they are not all equal.
* `lmms_eval`: lmms-eval 0.7.3. Both are always normalized. Its OK-VQA task first drops commas and question marks and
  separates "'s" from its word.
* `vlmevalkit`: VLMEvalKit e8e78f0. Both are always normalized; a full stop after a digit stays.

Under a rule that normalizes the annotators' answers, an empty prediction agrees with an annotator whose answer
normalizes to the empty text (`a`). The scores follow the rule and count such answers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

VqaRule = Literal["official", "lavis", "lmms_eval", "vlmevalkit"]
Compared = tuple[str, Sequence[str]]
"""A prediction and the annotators' answers, normalized for comparison."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBER_WORDS)}}
_ARTICLES = {"a", "an", "the"}
_DIGIT_COMMA = re.compile(r"\d,\d")
# The official code intends to keep a full stop between digits, but keeps any full stop before a digit. So does this.
_STOP = re.compile(r"\.(?!\d)")
_STOPS_REMOVED = 32  # the official call passes a flag (re.UNICODE == 32) as the count

# Contractions whose missing apostrophe the official code restores, a single one ("wouldnt've" and "wouldn'tve", not
# "wouldntve"). From "somebody'd" it removes the apostrophe instead.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's something'd someone'd someone'd've someone'll someone's something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
    you'll you're you've
"""
_RESTORED = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTIONS.split()
    for at, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}
# Differences of the harnesses.
_LONE_STOP = re.compile(r"(?<!\d)\.(?!\d)")
_DIGIT_COMMAS = re.compile(r"\d,+\d")


def strip_punctuation(answer: str, stop: re.Pattern[str] = _STOP, digit_comma: re.Pattern[str] = _DIGIT_COMMA) -> str:
    """Return the answer without punctuation: removed, or replaced by a space where it joins two words.

    Args:
        answer: any text.
        stop: which full stops are removed.
        digit_comma: a comma inside a number; an answer that matches loses all punctuation without spaces.
    """
    text = answer
    joins_digits = digit_comma.search(answer) is not None
    for mark in _PUNCTUATION:
        separate = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if separate or joins_digits else " ")
    return stop.sub("", text, count=_STOPS_REMOVED)


def clean_words(text: str) -> str:
    """Return the text in lower case, with digits for number words, without articles, contractions restored."""
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def normalize_answer(answer: str) -> str:
    """Return the officially normalized answer: punctuation, lower case, number words, articles, contractions."""
    return clean_words(strip_punctuation(_one_line(answer)))


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _official(prediction: str, answers: Sequence[str]) -> Compared:
    lines = [_one_line(answer) for answer in answers]
    if len(set(lines)) == 1:
        return _one_line(prediction), lines
    return normalize_answer(prediction), [normalize_answer(line) for line in lines]


def _lavis(prediction: str, answers: Sequence[str]) -> Compared:
    if len(set(answers)) > 1:
        answers = [strip_punctuation(answer) for answer in answers]
    return normalize_answer(prediction), answers


def _lmms_eval(prediction: str, answers: Sequence[str]) -> Compared:
    def normalized(answer: str) -> str:
        return clean_words(strip_punctuation(_one_line(answer), digit_comma=_DIGIT_COMMAS))

    return normalized(prediction), [normalized(answer) for answer in answers]


def _lmms_eval_okvqa(prediction: str, answers: Sequence[str]) -> Compared:
    def separated(answer: str) -> str:
        return answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")

    return _lmms_eval(separated(prediction), [separated(answer) for answer in answers])


def _vlmevalkit(prediction: str, answers: Sequence[str]) -> Compared:
    def normalized(answer: str) -> str:
        return clean_words(strip_punctuation(_one_line(answer), _LONE_STOP))

    return normalized(prediction), [normalized(answer) for answer in answers]


RULES: Mapping[VqaRule, Callable[[str, Sequence[str]], Compared]] = {
    "official": _official,
    "lavis": _lavis,
    "lmms_eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
}
RULES_OF_BENCHMARKS: Mapping[tuple[str, str], Callable[[str, Sequence[str]], Compared]] = {
    ("lmms_eval", "okvqa"): _lmms_eval_okvqa,
}
"""Rules that a harness has for a single benchmark, by rule and benchmark."""

SOURCES: Mapping[VqaRule, str] = {
    "official": "official (GT-Vision-Lab/VQA since 2021, a013f00)",
    "lavis": "lavis (LAVIS 1.0.2: the official rule before 2021, LION's)",
    "lmms_eval": "lmms_eval (lmms-eval 0.7.3)",
    "vlmevalkit": "vlmevalkit (VLMEvalKit e8e78f0)",
}
