"""Answer accuracy: VQAv2's soft accuracy, A-OKVQA's two settings, and plain exact match.

An answer that is empty, or that normalisation empties, is never right. Sources: the VQA evaluation code (Antol et al.,
ICCV 2015; Goyal et al., CVPR 2017) and A-OKVQA's (Schwenk et al., ECCV 2022).
"""

import re
from collections.abc import Sequence

import numpy as np

from pipelines.evaluation.estimates import Scores, bootstrap_mean, require_pairs

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBER_WORDS)}}
_ARTICLES = {"a", "an", "the"}
_DIGIT_COMMA = re.compile(r"\d,\d")
# The official code means to spare a full stop between digits and spares any before a digit; the effect is kept.
_STOP = re.compile(r"\.(?!\d)")
_STOPS_REMOVED = 32  # the official call passes a flag (re.UNICODE == 32) where the count belongs
_MIN_ANSWERS = 4

# Contractions whose lost apostrophe the official code restores, one at a time ("wouldnt've" and "wouldn'tve", not
# "wouldntve"). "somebody'd" is the one that it takes an apostrophe from.
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


def strip_punctuation(answer: str) -> str:
    """The official first half of normalisation: punctuation away, or to a space where it joins two words."""
    text = answer
    joins_digits = _DIGIT_COMMA.search(answer) is not None
    for mark in _PUNCTUATION:
        separate = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if separate or joins_digits else " ")
    return _STOP.sub("", text, count=_STOPS_REMOVED)


def normalise_answer(answer: str) -> str:
    """The official normalisation: punctuation, lower case, number words to digits, no articles, contractions."""
    text = strip_punctuation(answer.replace("\n", " ").replace("\t", " ").strip())
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The mean over leaving one annotator out of min(agreeing annotators / 3, 1).

    Raises:
        ValueError: fewer than four answers, with which no prediction could be wholly right.
    """
    if len(answers) < _MIN_ANSWERS:
        raise ValueError(
            f"VQA's soft accuracy needs the answers of at least {_MIN_ANSWERS} annotators, but a question has "
            f"{len(answers)}; score single answers as `exact_match`."
        )
    answer = normalise_answer(prediction)
    if not answer:
        return 0.0
    # The official code normalises the annotators' answers (by punctuation alone) only where they differ.
    given = [strip_punctuation(other) for other in answers] if len(set(answers)) > 1 else list(answers)
    matches = sum(other == answer for other in given)
    with_out = matches * min((matches - 1) / 3, 1.0) + (len(given) - matches) * min(matches / 3, 1.0)
    return with_out / len(given)


def vqa(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """VQAv2's and OK-VQA's soft accuracy.

    Args:
        predictions: (n) answers.
        references: (n) the annotators' answers, ten as a rule.

    Raises:
        ValueError: the lists differ in length or are empty, or a question has fewer than four answers.
    """
    require_pairs(len(predictions), len(references))
    scores = [soft_accuracy(answer, given) for answer, given in zip(predictions, references, strict=True)]
    return _scores("vqa", "soft_accuracy", scores, [not normalise_answer(answer) for answer in predictions])


def aokvqa_direct(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """A-OKVQA's direct answers: min(equal answers / 3, 1), compared in lower case without outer space.

    Questions marked `difficult_direct_answer` belong to no official score; leave them out of the lists.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    require_pairs(len(predictions), len(references))
    answers = [answer.strip().lower() for answer in predictions]
    scores = [
        min(sum(answer == other.strip().lower() for other in given) / 3, 1.0) if answer else 0.0
        for answer, given in zip(answers, references, strict=True)
    ]
    return _scores("aokvqa_direct", "direct_answer", scores, [not answer for answer in answers])


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Accuracy of answers with one right wording (or several): A-OKVQA's choices, GQA, VSR, IconQA.

    Compared in lower case, without outer space and a full stop at the end.

    Raises:
        ValueError: the lists differ in length or are empty, or a question has no answer.
    """
    require_pairs(len(predictions), len(references))
    if not all(references):
        raise ValueError("A question has no reference answer; every question needs one.")
    answers = [_plain(answer) for answer in predictions]
    scores = [
        float(bool(answer) and any(answer == _plain(right) for right in given))
        for answer, given in zip(answers, references, strict=True)
    ]
    return _scores("exact_match", "accuracy", scores, [not answer for answer in answers])


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").strip().lower()


def _scores(metric: str, primary: str, scores: Sequence[float], empty: Sequence[bool]) -> Scores:
    per_sample = np.asarray(scores, dtype=np.float64)
    return Scores(
        metric=metric,
        primary=primary,
        estimates={primary: bootstrap_mean(per_sample)},
        per_sample=per_sample,
        counts={"samples": len(per_sample), "empty_answers": int(sum(empty))},
    )
