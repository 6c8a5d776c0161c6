"""Answers on which the rules of VQA's soft accuracy differ: numbers, articles, contractions, punctuation, blanks."""

import random
from collections.abc import Iterator

_PLAIN = """
    dog dogs cat two 2 none zero 0 ten 10 one 1 yes no Yes NO the a an The A red blue wi-fi t-shirt don't dont isnt
    isn't its it's let's lets dogs' dog's man's wouldnt've wouldn'tve somebody'd yall'd've o'clock oclock Im Id've
    ow's'at hes she's cant café
"""
_ODD = """
    5 5. 3.5 .5 1,000 1,,000 10:30 50% $5 u.s. U.S. st. mr. black/white black,white left,right "stop" (stop) what? hi!
    ... ? , - _ & é 2½ ½
"""
_WORDS = [word for line in (_PLAIN, _ODD) for word in line.split()]
_BLANKS = [" ", " ", " ", "  ", "\n", "\t", "", ", ", ",", " ,", ". ", ".", "-", " - ", "/", "? "]


def questions(count: int, seed: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Yield predictions with ten annotators' answers, so similar that the rules give different scores."""
    draw = random.Random(seed)
    for _ in range(count):
        core = _phrase(draw)
        kinds = [_variant(draw, core) for _ in range(draw.choice([1, 1, 2, 3]))]
        answers = [draw.choice(kinds) for _ in range(10)]
        if draw.random() < 0.3:
            answers = [draw.choice([answer, _phrase(draw)]) for answer in answers]
        prediction = draw.choice([core, _variant(draw, core), draw.choice(answers), draw.choice(answers).lower(), ""])
        yield prediction, answers


def _phrase(draw: random.Random) -> str:
    text = draw.choice(_WORDS)
    for _ in range(draw.choice([0, 0, 1, 1, 2])):
        text += draw.choice(_BLANKS) + draw.choice(_WORDS)
    return text


def _variant(draw: random.Random, text: str) -> str:
    change = draw.randrange(8)
    if change == 0:
        return f"{draw.choice(['a', 'the', 'an'])} {text}"
    if change == 1:
        return text + draw.choice([".", "!", "?", " ", "\n", ","])
    if change == 2:
        return text.title() if draw.random() < 0.5 else text.upper()
    if change == 3:
        return text.replace("two", "2").replace("10", "ten").replace("none", "0")
    if change == 4:
        return text.replace("'", "").replace("-", " ")
    return text
