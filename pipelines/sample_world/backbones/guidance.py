"""What a small T5 is told beside the right answer: where to look for it, and which digits of a box matter.

A T5 of half a million parameters takes tens of thousands of steps to find out from answers alone that "blue circle" is
to be looked up among the phrases. Where the corpus knows which object an answer is about, one attention head is told
so (as guided alignment in translation does, Chen et al. 2016, arXiv 1607.01628); the other heads learn by themselves.
And the third digit of a coordinate, less than a pixel, is chance: weighted like the others, it would be most of the
loss of a box.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.sample_world.backbones.corpus import Question
from pipelines.sample_world.backbones.phrases import Phrase

_DIGIT_WEIGHTS = (1.0, 1.0, 0.1)  # of a coordinate's digits behind the point
_LEAST = 1e-4  # attention below this is not pushed harder


def sought(
    asked: Sequence[Question], phrases: Sequence[Sequence[Phrase]], spans: Sequence[Sequence[tuple[int, int]]]
) -> Tensor:
    """Which phrases (K of each) each answer token is found at, as flags (B, T, K); no flag where that is not known.

    Args:
        asked: B questions.
        phrases: of each question.
        spans: of each question's answer tokens, the first and last character + 1; empty for special tokens.
    """
    flags = np.zeros((len(asked), max(map(len, spans)), len(phrases[0])), bool)
    for row, (question, listed, tokens) in enumerate(zip(asked, phrases, spans, strict=True)):
        numbers = np.array([-1 if phrase.number is None else phrase.number for phrase in listed])
        for look in question.looks:
            shown = np.isin(numbers, list(look.objects))
            for column, (start, end) in enumerate(tokens):
                if start < end and look.start <= start < look.end:
                    flags[row, column] = shown
    return torch.from_numpy(flags)


def unseen(attention: Tensor, wanted: Tensor) -> Tensor:
    """How far an attention head is from looking where it should: mean over the tokens with a known place of −log of the
    attention that their phrases get.

    Args:
        attention: (B, T, S), rows sum to 1; the phrases are the first K of S.
        wanted: flags (B, T, K).
    """
    known = wanted.any(-1)
    got = (attention[..., : wanted.shape[-1]] * wanted).sum(-1)
    return -(got[known].clamp_min(_LEAST)).log().sum() / known.sum().clamp_min(1)


def digit_weights(labels: Tensor, openings: Sequence[int]) -> Tensor:
    """The weight (B, T) of each answer token in the loss: 0 at padding (−100), less for a coordinate's last digit.

    Args:
        labels: token ids (B, T).
        openings: the tokens behind which a coordinate's digits come.
    """
    weights = (labels != -100).float()
    opens = torch.isin(labels, torch.tensor(list(openings)))
    for place, weight in enumerate(_DIGIT_WEIGHTS, start=1):
        if place < labels.shape[1]:
            weights[:, place:][opens[:, :-place]] *= weight
    return weights
