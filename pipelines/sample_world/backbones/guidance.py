"""Additional training signals of the small T5: where to look for an answer, and which digits of a box matter.

From answers alone, a T5 of half a million parameters needs tens of thousands of steps to learn that it must look up
"blue circle" among the phrases. If the corpus has the objects that an answer is about, a loss guides one attention head
to their phrases (guided alignment, as in translation: Chen et al. 2016, arXiv 1607.01628). The other heads are free.
The third digit of a coordinate is below a pixel and cannot be predicted: with full weight it would be most of the loss
of a box.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.sample_world.backbones.corpus import CorpusQuestion
from pipelines.sample_world.backbones.phrases import Phrase

_DIGIT_WEIGHTS = (1.0, 1.0, 0.1)  # loss weights of the three decimals of a coordinate
_LEAST = 1e-4  # attention is clamped to this, so that the logarithm stays finite


def phrase_targets(
    questions: Sequence[CorpusQuestion],
    phrases: Sequence[Sequence[Phrase]],
    token_spans: Sequence[Sequence[tuple[int, int]]],
) -> Tensor:
    """Return the phrases that each answer token should attend to, as flags (B, T, K).

    A token without known objects has no flag.

    Args:
        questions: B questions.
        phrases: the K phrases of each question's scene.
        token_spans: for each question, (start, end) in characters of each of the T answer tokens; empty spans for
            special tokens.
    """
    flags = np.zeros((len(questions), max(map(len, token_spans)), len(phrases[0])), bool)
    for row, (question, scene_phrases, tokens) in enumerate(zip(questions, phrases, token_spans, strict=True)):
        numbers = np.array([-1 if phrase.number is None else phrase.number for phrase in scene_phrases])
        for span in question.spans:
            targets = np.isin(numbers, list(span.objects))
            for column, (start, end) in enumerate(tokens):
                if start < end and span.start <= start < span.end:
                    flags[row, column] = targets
    return torch.from_numpy(flags)


def guidance_loss(attention: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of the guided attention head, a scalar.

    It is the mean of -log of the attention to the target phrases, over the tokens that have targets; 0 if none has.

    Args:
        attention: (B, T, S), rows sum to 1; the phrases are the first K of S.
        targets: flags (B, T, K), from `phrase_targets`.
    """
    has_target = targets.any(-1)
    attended = (attention[..., : targets.shape[-1]] * targets).sum(-1)
    return -(attended[has_target].clamp_min(_LEAST)).log().sum() / has_target.sum().clamp_min(1)


def digit_weights(labels: Tensor, openings: Sequence[int]) -> Tensor:
    """Return the weight (B, T) of each answer token in the loss: 0 at padding, small for a coordinate's third decimal.

    Args:
        labels: token ids (B, T), -100 at padding.
        openings: ids of the tokens that a coordinate's digits follow.
    """
    weights = (labels != -100).float()
    opens = torch.isin(labels, torch.tensor(list(openings)))
    for offset, weight in enumerate(_DIGIT_WEIGHTS, start=1):
        if offset < labels.shape[1]:
            weights[:, offset:][opens[:, :-offset]] *= weight
    return weights
